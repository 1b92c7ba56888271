// Tokens that are found in a text whole, before anything cuts it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace puna {

struct AddedToken {
    int32_t id = 0;
    std::string text;
    bool is_special = false;                       // is not to be found, and hides what it covers
    bool takes_left = false, takes_right = false;  // the white space beside it
    bool is_normalized = false;                    // is looked for in the normalized text
};

class AddedTokens {
  public:
    AddedTokens() = default;
    explicit AddedTokens(std::vector<AddedToken> tokens);

    // Whether none of them is ever to be found.
    bool is_empty() const { return !has_ordinary_; }

    // Calls on_text(begin, end) for stretches of the text and on_token(id) for tokens between them, in order;
    // the leftmost token counts, and the longest of those that begin there.
    template <class TextSink, class TokenSink>
    void split(std::string_view text, TextSink on_text, TokenSink on_token) const {
        size_t done = 0;
        Found found;
        for (size_t from = 0; find(text, from, found);) {
            from = found.end;
            if (found.token->is_special) continue;
            const size_t begin =
                found.token->takes_left ? space_before(text, found.begin, done) : found.begin;
            const size_t end = found.token->takes_right ? space_behind(text, found.end) : found.end;
            if (done < begin) on_text(done, begin);
            on_token(found.token->id);
            done = end;
        }
        if (done < text.size()) on_text(done, text.size());
    }

  private:
    struct Found {
        size_t begin = 0, end = 0;
        const AddedToken* token = nullptr;
    };
    bool find(std::string_view text, size_t from, Found& found) const;
    static size_t space_before(std::string_view text, size_t from, size_t least);
    static size_t space_behind(std::string_view text, size_t from);

    std::vector<AddedToken> tokens_;  // sorted by text
    bool has_ordinary_ = false;
};

}  // namespace puna
