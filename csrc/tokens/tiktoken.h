#pragma once

#include <string_view>

#include "tokens/table.h"

namespace puna {

// Reads Llama 3's tokenizer.model: for each token a line of its bytes in base64, a space and its rank, which
// go 0, 1, 2, ... The table spells them in GPT-2's alphabet. Throws TokenizerError where the file is not of
// that form.
TokenTable read_tiktoken(std::string_view text);

}  // namespace puna
