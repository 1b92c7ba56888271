// The large part of a tokenizer.json, read without making an object of every token.
#pragma once

#include <string>
#include <string_view>

#include "tokens/table.h"

namespace puna {

struct TokenizerJson {
    TokenTable table;
    // The document with `{}` for its model's vocabulary and `[]` for its merges; whoever reads it checks that
    // it is sound JSON. Where `vocab` is no object or `merges` no list, they are left as they are.
    std::string rest;
};

// Throws TokenizerError where the vocabulary or the merges are damaged or contradict themselves.
TokenizerJson read_tokenizer_json(std::string_view text);

// The opposite: `vocab` and `merges`.
std::string vocab_json(const TokenTable& table);
std::string merges_json(const TokenTable& table);

}  // namespace puna
