// The regular expressions with which vocabularies cut text, over UTF-8: what a tokenizer.json of a Llama has,
// with the meaning that Oniguruma, for which they are written, gives it. A backtracking matcher with a budget
// of steps: a pattern that would take for ever is an error.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <string_view>
#include <vector>

#include "tokens/pattern_tree.h"

namespace puna {

class Pattern {
  public:
    explicit Pattern(std::string_view pattern);
    // Matches the text itself.
    static Pattern literal(std::string_view text);

  private:
    friend class Matcher;
    // Bytes with which a match may begin.
    using Beginnings = std::bitset<256>;
    struct Op {
        enum class Kind : uint8_t {
            character,   // code
            set,         // set
            repeat_set,  // set, least to most times, as often as possible
            attempt,     // go on at `to`; if that fails, at `otherwise`
            jump,        // to
            atomic,      // what follows up to `to` matches as it first can, or not at all
            ahead,       // the same, without moving on
            not_ahead,
            line_start,
            line_end,
            end
        };
        Kind kind;
        bool is_possessive = false;
        int32_t to = 0, otherwise = 0;
        uint32_t code = 0, set = 0;
        int32_t least = 0, most = 0;
        uint32_t beginnings =
            kAny;  // of an attempt: which may be spared where the next byte is not one of these
    };
    static constexpr uint32_t kAny = UINT32_MAX;
    struct First {
        Beginnings bytes;
        bool may_be_empty = false;
    };

    explicit Pattern(const Node& tree);
    int32_t emit(Op::Kind kind);
    uint32_t keep(const Node& node);
    void compile(const Node& node);
    void compile_choice(const Node& node);
    void compile_repeat(const Node& node);
    void compile_sub(const Node& node, Op::Kind kind);
    uint32_t beginnings_of(const Node& node);
    static First first_of(const Node& node);

    std::vector<Op> ops_;
    std::vector<CharSet> sets_;
    std::vector<Beginnings> beginnings_;
    uint32_t start_ = kAny;  // beginnings of the whole pattern
};

}  // namespace puna
