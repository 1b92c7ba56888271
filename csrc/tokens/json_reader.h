// A walk over JSON that builds nothing: whoever uses it says what is to come.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "tokens/error.h"
#include "tokens/utf8.h"

namespace puna {

// Nothing calls itself, so that deep nesting cannot exhaust the stack. Throws TokenizerError.
class JsonReader {
  public:
    explicit JsonReader(std::string_view text)
        : begin_(text.data()), p_(begin_), end_(begin_ + text.size()) {}

    size_t position() const { return static_cast<size_t>(p_ - begin_); }
    void go_to(size_t position) { p_ = begin_ + position; }

    // The next character that is no white space, 0 at the end.
    char peek() {
        while (p_ < end_ && (*p_ == ' ' || *p_ == '\n' || *p_ == '\r' || *p_ == '\t')) p_++;
        return p_ < end_ ? *p_ : '\0';
    }
    bool take(char wanted) {
        if (peek() != wanted) return false;
        p_++;
        return true;
    }
    void need(char wanted) {
        if (!take(wanted)) fail(std::string("needs '") + wanted + "'");
    }
    // After a value: whether another follows before the bracket that closes.
    bool another(char close) {
        if (take(close)) return false;
        need(',');
        return true;
    }

    // A string, into `out`.
    void string(std::string& out) {
        need('"');
        out.clear();
        for (;;) {
            const char* const run = p_;
            while (p_ < end_ && *p_ != '"' && *p_ != '\\' && static_cast<unsigned char>(*p_) >= 0x20) p_++;
            out.append(run, static_cast<size_t>(p_ - run));
            if (p_ == end_ || static_cast<unsigned char>(*p_) < 0x20) fail("a string does not end");
            if (*p_++ == '"') return;
            escape(out);
        }
    }

    int64_t number() {
        peek();
        const char* const start = p_;
        int64_t value = 0;
        for (; p_ < end_ && *p_ >= '0' && *p_ <= '9' && p_ - start < 18; p_++)
            value = value * 10 + (*p_ - '0');
        const bool has_more = p_ < end_ && std::strchr("0123456789.eE-+", *p_) != nullptr;
        if (p_ == start || has_more || (*start == '0' && p_ - start > 1))
            fail("a token's id must be a whole number that is not negative");
        return value;
    }

    // A value of any kind, whose soundness is for others to check.
    void skip() {
        peek();
        const char* const start = p_;
        int64_t depth = 0;
        while (p_ < end_) {
            const char c = *p_;
            if (c == '"') {
                skip_string();
                if (depth == 0) return;
                continue;
            }
            if (c == '[' || c == '{') depth++;
            if (c == ']' || c == '}' || c == ',') {
                if (depth == 0) break;
                if (c != ',') depth--;
            }
            p_++;
            if (depth == 0 && (c == ']' || c == '}')) return;
        }
        if (p_ == start || depth > 0) fail("a value does not end");
    }

    [[noreturn]] void fail(const std::string& what) const {
        throw TokenizerError("not readable as JSON: byte " + std::to_string(position()) + ": " + what);
    }

  private:
    void skip_string() {
        for (p_++; p_ < end_ && *p_ != '"'; p_++)
            if (*p_ == '\\') p_++;
        if (p_ >= end_) {
            p_ = end_;
            fail("a string does not end");
        }
        p_++;
    }

    uint32_t hex4() {
        if (end_ - p_ < 4) fail("a string does not end");
        uint32_t value = 0;
        for (int i = 0; i < 4; i++, p_++) {
            const char c = *p_;
            const int digit = c >= '0' && c <= '9'   ? c - '0'
                              : c >= 'a' && c <= 'f' ? c - 'a' + 10
                              : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                     : -1;
            if (digit < 0) fail("\\u needs four hexadecimal digits");
            value = value << 4 | static_cast<uint32_t>(digit);
        }
        return value;
    }

    void escape(std::string& out) {
        if (p_ == end_) fail("a string does not end");
        const char c = *p_++;
        static constexpr char kFrom[] = "\"\\/bfnrt", kTo[] = "\"\\/\b\f\n\r\t";
        if (const char* found = std::strchr(kFrom, c); c != '\0' && found != nullptr) {
            out += kTo[found - kFrom];
            return;
        }
        if (c != 'u') fail("an unknown escape in a string");
        uint32_t code = hex4();
        if (code >= 0xd800 && code < 0xe000) {
            const bool is_pair = code < 0xdc00 && end_ - p_ >= 2 && p_[0] == '\\' && p_[1] == 'u';
            if (is_pair) p_ += 2;
            const uint32_t low = is_pair ? hex4() : 0;
            if (low < 0xdc00 || low >= 0xe000) fail("half of a surrogate pair in a string");
            code = 0x10000 + ((code - 0xd800) << 10 | (low - 0xdc00));
        }
        append_utf8(out, code);
    }

    const char *begin_, *p_, *end_;
};

}  // namespace puna
