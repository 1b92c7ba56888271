#include "tokens/pattern_tree.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "tokens/error.h"
#include "tokens/pattern_scanner.h"

namespace puna {

namespace {

using Kind = Node::Kind;
using Greed = Node::Greed;

constexpr int kMaxDepth = 32;
constexpr int32_t kMaxCount = 1'000;

Node node_of(uint32_t code) {
    Node node;
    node.kind = Kind::character;
    node.code = code;
    return node;
}

Node node_of(CharSet set) {
    Node node;
    node.kind = Kind::set;
    node.set = std::move(set);
    return node;
}

class Parser : private PatternScanner {
  public:
    using PatternScanner::PatternScanner;

    Node parse() {
        Node node = choice(0);
        if (at_ < pattern_.size()) fail("a ) that closes nothing");
        return node;
    }

  private:
    Node choice(int depth) {
        if (depth > kMaxDepth) fail("groups may be nested " + std::to_string(kMaxDepth) + " deep");
        Node node;
        node.kind = Kind::choice;
        do node.parts.push_back(sequence(depth));
        while (take("|"));
        return node.parts.size() == 1 ? std::move(node.parts[0]) : node;
    }

    Node sequence(int depth) {
        Node node;
        while (at_ < pattern_.size() && !is_at("|") && !is_at(")"))
            node.parts.push_back(repeated(atom(depth)));
        check_folding(node);
        return node;
    }

    Node atom(int depth) {
        if (take("(")) return group(depth);
        if (take("[")) return node_of(set());
        if (is_at("\\")) return escape();
        if (take(".")) {
            CharSet newline;
            newline.add('\n', '\n');
            newline.negate();
            return node_of(std::move(newline));
        }
        Node node;
        if (take("^")) {
            node.kind = Kind::line_start;
            return node;
        }
        if (take("$")) {
            node.kind = Kind::line_end;
            return node;
        }
        if (is_at("*") || is_at("+") || is_at("?")) fail("a repeat of nothing");
        return literal(next());
    }

    Node group(int depth) {
        Node node;
        const bool folded = ignores_case_;
        const auto inside = [&](Kind kind, bool negative) {
            node.kind = kind;
            node.is_negative = negative;
            node.parts.push_back(choice(depth + 1));
        };
        if (take("?:"))
            node = choice(depth + 1);
        else if (take("?i:")) {
            ignores_case_ = true;
            node = choice(depth + 1);
        } else if (take("?>"))
            inside(Kind::atomic, false);
        else if (take("?="))
            inside(Kind::ahead, false);
        else if (take("?!"))
            inside(Kind::ahead, true);
        else if (is_at("?"))
            unsupported("this kind of group");
        else
            node = choice(depth + 1);
        ignores_case_ = folded;
        if (!take(")")) fail("a group does not end");
        return node;
    }

    Node literal(uint32_t code) {
        if (!ignores_case_ || !is_letter(code)) {
            if (ignores_case_ && code >= 128) unsupported("ignoring the case of other than ASCII letters");
            return node_of(code);
        }
        CharSet both;
        add_folded(both, code);
        Node node = node_of(std::move(both));
        node.code = code | 32;
        return node;
    }

    // Unicode has two more characters that fold to an ASCII letter.
    static void add_folded(CharSet& set, uint32_t letter) {
        set.add(letter | 32, letter | 32);
        set.add(letter & ~32u, letter & ~32u);
        if ((letter | 32) == 's') set.add(0x17f, 0x17f);
        if ((letter | 32) == 'k') set.add(0x212a, 0x212a);
    }

    // Ligatures (and sharp s) equal two letters where the case is ignored.
    void check_folding(const Node& sequence) const {
        if (!ignores_case_) return;
        for (size_t i = 0; i + 1 < sequence.parts.size(); i++) {
            const uint32_t a = sequence.parts[i].code, b = sequence.parts[i + 1].code;
            if ((a == 's' && (b == 's' || b == 't')) || (a == 'f' && (b == 'f' || b == 'i' || b == 'l')))
                unsupported("ignoring the case of letters that have a ligature");
        }
    }

    // A character that is written with a backslash; a set for \s and its kin.
    Node escape() {
        at_++;
        const uint32_t c = next();
        if (const auto set = escaped_set(c)) return node_of(*set);
        return literal(escaped_code(c));
    }

    std::optional<CharSet> escaped_set(uint32_t letter) {
        CharSet set;
        switch (letter | 32) {
            case 's':
                set.add(9, 13);
                set.add(0x85, 0x85);
                set.add_categories(category_mask("Z"));
                break;
            case 'd':
                set.add_categories(category_mask("Nd"));
                break;
            case 'p':
                set = property();
                break;
            default:
                return std::nullopt;
        }
        if (letter < 'a') set.negate();
        return set;
    }

    CharSet property() {
        const bool is_negated = take("{^");
        if (!is_negated && !take("{")) fail("\\p needs a category in braces");
        const size_t end = pattern_.find('}', at_);
        if (end == std::string_view::npos) fail("\\p{ does not end");
        const uint32_t mask = category_mask(pattern_.substr(at_, end - at_));
        if (mask == 0) unsupported("\\p{} of other than a general category such as L or Lu");
        at_ = end + 1;
        CharSet set;
        set.add_categories(mask);
        if (is_negated) set.negate();
        return set;
    }

    CharSet set() {
        CharSet set;
        const bool is_negated = take("^");
        bool is_empty = true;
        for (; !is_at("]") || is_empty; is_empty = false) {
            if (is_at("[") || is_at("&&")) unsupported("a set within a set");
            if (is_empty && is_at("]")) unsupported("a ] at the beginning of a set");
            uint32_t first = next();
            if (first == '\\') {
                const uint32_t c = next();
                if (const auto inner = escaped_set(c)) {
                    if (is_at("-") && !is_at("-]")) unsupported("a range that begins with a set");
                    set.add(*inner);
                    continue;
                }
                first = escaped_code(c);
            }
            uint32_t last = first;
            if (is_at("-") && !is_at("-]")) {
                at_++;
                last = next();
                if (last == '[') unsupported("a set within a set");
                if (last == '\\') {
                    const uint32_t c = next();
                    if (escaped_set(c)) unsupported("a range that ends with a set");
                    last = escaped_code(c);
                }
            }
            if (last < first) fail("a range that runs backwards");
            add_range(set, first, last);
        }
        at_++;
        if (is_negated) set.negate();
        return set;
    }

    void add_range(CharSet& set, uint32_t first, uint32_t last) {
        set.add(first, last);
        if (!ignores_case_) return;
        if (last >= 128) unsupported("ignoring the case of other than ASCII letters");
        for (uint32_t code = first; code <= last; code++)
            if (is_letter(code)) add_folded(set, code);
    }

    Node repeated(Node node) {
        for (int depth = 0;; depth++) {
            int32_t least = 0, most = kNoLimit;
            const bool is_counted = is_at("{");
            if (take("?"))
                most = 1;
            else if (take("+"))
                least = 1;
            else if (!take("*") && !(is_counted && count(least, most)))
                return node;
            if (depth > 1) unsupported("a repeat of a repeat of a repeat");
            Node repeat;
            repeat.kind = Kind::repeat;
            repeat.least = least;
            repeat.most = most;
            if (is_counted && least == most && is_at("?")) unsupported("{n}?");
            if (take("?"))
                repeat.greed = Greed::lazy;
            else if (!is_counted &&
                     take("+"))  // {n,m}+ repeats the repeat, as in the library that wrote the pattern
                repeat.greed = Greed::possessive;
            repeat.parts.push_back(std::move(node));
            node = std::move(repeat);
        }
    }

    // {n}, {n,}, {,m} or {n,m}; nothing is taken where it is none of these.
    bool count(int32_t& least, int32_t& most) {
        const size_t start = at_++;
        const auto number = [&](int32_t otherwise) {
            if (at_ >= pattern_.size() || !is_digit(static_cast<unsigned char>(pattern_[at_])))
                return otherwise;
            int32_t value = 0;
            while (at_ < pattern_.size() && is_digit(static_cast<unsigned char>(pattern_[at_])) &&
                   value <= kMaxCount)
                value = value * 10 + (pattern_[at_++] - '0');
            if (value > kMaxCount) fail("a repeat may count to " + std::to_string(kMaxCount));
            return value;
        };
        least = number(-1);
        const bool is_exact = !take(",");
        most = is_exact ? least : number(kNoLimit);
        const bool is_count = take("}") && (least >= 0 || (!is_exact && most != kNoLimit));
        if (!is_count) at_ = start;
        least = std::max(least, 0);
        if (is_count && most < least) unsupported("a count that runs backwards");
        return is_count;
    }

    bool ignores_case_ = false;
};

}  // namespace

Node parse_pattern(std::string_view pattern) { return Parser(pattern).parse(); }

}  // namespace puna
