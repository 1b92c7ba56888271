// Finds where a pattern matches.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "tokens/pattern.h"

namespace puna {

struct Span {
    size_t begin, end;
};

// Finds the matches of a pattern in a text, from the first to the last.
class Matcher {
  public:
    // Takes what it uses from `steps`, and throws TokenizerError when that is used up.
    Matcher(const Pattern& pattern, std::string_view text, int64_t& steps);
    // The next match; none, once it has said false. An empty match right behind the last one does not count.
    bool next(Span& match);

  private:
    struct Frame {
        int32_t op;
        const char *at, *floor;  // try again from `at`, then a character before it, down to `floor`
    };
    bool run(int32_t op, const char* at, const char*& end);
    bool is_spared(uint32_t beginnings, const char* at) const;
    const char* take_set(const CharSet& set, const char* at, int32_t most, int32_t& taken) const;

    const Pattern& pattern_;
    const char *begin_, *end_, *from_;
    const char* last_end_ = nullptr;
    int64_t& steps_;
    std::vector<Frame> frames_;
};

}  // namespace puna
