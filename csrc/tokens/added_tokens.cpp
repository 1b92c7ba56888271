#include "tokens/added_tokens.h"

#include <algorithm>
#include <utility>

#include "tokens/unicode.h"
#include "tokens/utf8.h"

namespace puna {

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
    std::erase_if(tokens_, [](const AddedToken& token) { return token.text.empty(); });
    std::sort(tokens_.begin(), tokens_.end(),
              [](const AddedToken& a, const AddedToken& b) { return a.text < b.text; });
    has_ordinary_ =
        std::any_of(tokens_.begin(), tokens_.end(), [](const AddedToken& t) { return !t.is_special; });
}

// The range of tokens that begin like the text at a place is narrowed byte by byte; one that ends there is
// its first.
bool AddedTokens::find(std::string_view text, size_t from, Found& found) const {
    found.token = nullptr;
    for (size_t begin = from; begin < text.size() && found.token == nullptr; begin++) {
        auto first = tokens_.begin(), last = tokens_.end();
        for (size_t length = 0; first != last && begin + length < text.size(); length++) {
            const auto byte = static_cast<unsigned char>(text[begin + length]);
            const auto at = [&](const AddedToken& token) {
                return length < token.text.size() ? static_cast<unsigned char>(token.text[length]) : -1;
            };
            first =
                std::partition_point(first, last, [&](const AddedToken& token) { return at(token) < byte; });
            last =
                std::partition_point(first, last, [&](const AddedToken& token) { return at(token) <= byte; });
            if (first != last && first->text.size() == length + 1)
                found = {begin, begin + length + 1, &*first};
        }
    }
    return found.token != nullptr;
}

size_t AddedTokens::space_before(std::string_view text, size_t from, size_t least) {
    size_t begin = from;
    while (begin > least) {
        size_t at = begin - 1;
        while (at > least && is_continuation(text[at])) at--;
        if (!is_white_space(character_at(text.data() + at, text.data() + begin).code)) break;
        begin = at;
    }
    return begin;
}

size_t AddedTokens::space_behind(std::string_view text, size_t from) {
    const char* const end = text.data() + text.size();
    const char* p = text.data() + from;
    while (p < end && is_white_space(character_at(p, end).code)) p += character_at(p, end).bytes;
    return static_cast<size_t>(p - text.data());
}

}  // namespace puna
