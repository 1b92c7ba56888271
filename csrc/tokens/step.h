// What a normalizer or a pre-tokenizer of a tokenizer.json comes down to: changes of a text, and cuts.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "tokens/pattern.h"

namespace puna {

struct Step {
    enum class Kind { prepend, replace, call, split };
    enum class When {
        always,
        missing,
        first,
        never
    };  // of prepend: `first` is `missing`, and nothing before it
    enum class Behavior {
        isolated,
        removed,
        contiguous,
        merged_with_previous,
        merged_with_next
    };  // of split
    Kind kind = Kind::split;
    std::string text;  // what to prepend or to put in place
    When when = When::always;
    Pattern pattern{""};
    Behavior behavior = Behavior::isolated;
    std::function<std::string(std::string_view)> function;  // of call: what becomes of a text
    bool is_inverted = false;  // what the pattern does not match counts as matched
};

struct Piece {
    std::string_view text;
    bool is_first;  // nothing is before it
};

// Takes any step but a split; false where the text stays as it is. Both take what the pattern uses from
// `steps`.
bool change(const Step& step, Piece piece, int64_t& steps, std::string& changed);
// Takes a split: calls `put` for each part, none of them empty unless the whole is.
void split(const Step& step, Piece piece, int64_t& steps, const std::function<void(Piece)>& put);

}  // namespace puna
