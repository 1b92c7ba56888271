#pragma once

#include <string>
#include <string_view>

#include "base/check.h"

namespace puna {

// Becomes puna.errors.TokenizerError in Python.
class TokenizerError : public Error {
  public:
    using Error::Error;
};

#define PUNA_TOKENS_CHECK(ok, message)                    \
    do {                                                  \
        if (!(ok)) throw ::puna::TokenizerError(message); \
    } while (false)

// Bytes of a file for a message: short, and in printable characters only.
std::string quoted(std::string_view bytes, size_t most = 80);

}  // namespace puna
