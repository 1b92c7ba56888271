#include "tokens/tiktoken.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <string>
#include <vector>

#include "tokens/alphabet.h"
#include "tokens/error.h"

namespace puna {

namespace {

constexpr size_t kMaxTokenBytes = 1024;

constexpr std::array<int8_t, 256> kBase64 = [] {
    std::array<int8_t, 256> all{};
    for (int8_t& value : all) value = -1;
    const std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < digits.size(); i++)
        all[static_cast<unsigned char>(digits[i])] = static_cast<int8_t>(i);
    return all;
}();

// Appends a token in the alphabet's characters; the number of its bytes, 0 where it is no base64.
size_t spell_base64(std::string_view text, std::string& out) {
    if (text.empty() || text.size() % 4 != 0) return 0;
    const size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
    const auto put = [&](uint32_t byte) {
        out.append(kAlphabet[byte & 255].bytes, kAlphabet[byte & 255].length);
    };
    for (size_t i = 0; i < text.size(); i += 4) {
        uint32_t bits = 0;
        const size_t used = i + 4 == text.size() ? 4 - padding : 4;
        for (size_t j = 0; j < used; j++) {
            const int8_t value = kBase64[static_cast<unsigned char>(text[i + j])];
            if (value < 0) return 0;
            bits |= static_cast<uint32_t>(value) << (18 - 6 * j);
        }
        put(bits >> 16);
        if (used > 2) put(bits >> 8);
        if (used > 3) put(bits);
    }
    return text.size() / 4 * 3 - padding;
}

}  // namespace

TokenTable read_tiktoken(std::string_view text) {
    const auto n_lines = static_cast<size_t>(std::count(text.begin(), text.end(), '\n')) +
                         static_cast<size_t>(!text.empty() && text.back() != '\n');
    PUNA_TOKENS_CHECK(n_lines >= 1 && n_lines <= kMaxTokens,
                      "needs 1 to " + std::to_string(kMaxTokens) + " lines, got " + std::to_string(n_lines));
    TokenTable table;
    std::string token;
    for (size_t rank = 0; rank < n_lines; rank++) {
        const std::string_view line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(text.size(), line.size() + 1));
        const size_t space = line.find(' ');
        token.clear();
        const size_t n_bytes = spell_base64(line.substr(0, space), token);
        const bool has_rank =
            space != std::string_view::npos && line.substr(space + 1) == std::to_string(rank);
        PUNA_TOKENS_CHECK(n_bytes >= 1 && n_bytes <= kMaxTokenBytes && has_rank,
                          "line " + std::to_string(rank + 1) + " must be base64, a space and the rank " +
                              std::to_string(rank) + ", got " + quoted(line));
        table.add(token, static_cast<int64_t>(rank));
    }
    table.index_tokens();
    std::vector<int32_t> order(n_lines);
    std::iota(order.begin(), order.end(), 0);
    table.add_merges_by_rank(order);
    table.index_merges();
    return table;
}

}  // namespace puna
