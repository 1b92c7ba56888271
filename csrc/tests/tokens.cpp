// Byte-pair encoding on its own, for the sanitizers: merges beside the plain rule, and damaged files,
// patterns and texts, of which each must be taken or refused with an error.
#include <algorithm>
#include <string>
#include <vector>

#include "tests/check.h"
#include "tokens/alphabet.h"
#include "tokens/encoder.h"
#include "tokens/error.h"
#include "tokens/json.h"
#include "tokens/matcher.h"
#include "tokens/merging.h"
#include "tokens/tiktoken.h"

namespace puna::test {

namespace {

class Dice {
  public:
    explicit Dice(uint64_t seed) : state_(seed * 2654435761u + 1) {}
    size_t below(size_t n) {
        state_ = state_ * 6364136223846793005u + 1442695040888963407u;
        return static_cast<size_t>(state_ >> 33) % n;
    }
    std::string text(std::string_view alphabet, size_t most) {
        std::string text;
        for (size_t n = below(most + 1); n > 0; n--) text += alphabet[below(alphabet.size())];
        return text;
    }

  private:
    uint64_t state_;
};

// Bytes, then tokens over a and b in an order that is not that of their length.
TokenTable small_table() {
    TokenTable table;
    int64_t id = 0;
    for (const Spelled& byte : kAlphabet) table.add({byte.bytes, byte.length}, id++);
    std::vector<int32_t> order;
    for (const char* token : {"ab", "abab", "ba", "aa", "aab", "bb", "bbaa", "aaaa", "ababab"})
        table.add(token, id++);
    table.index_tokens();
    for (int32_t i = 0; i < table.size(); i++) order.push_back(i);
    table.add_merges_by_rank(order);
    table.index_merges();
    return table;
}

std::vector<int32_t> merge_plainly(const TokenTable& table, std::vector<int32_t> tokens) {
    for (;;) {
        uint32_t best = kMaxMerges;
        size_t place = 0;
        for (size_t i = 0; i + 1 < tokens.size(); i++)
            if (table.rank(tokens[i], tokens[i + 1]) < best) {
                best = table.rank(tokens[i], tokens[i + 1]);
                place = i;
            }
        if (best == kMaxMerges) return tokens;
        tokens[place] = table.merge(best).result;
        tokens.erase(tokens.begin() + static_cast<ptrdiff_t>(place) + 1);
    }
}

void test_merging(const TokenTable& table) {
    Dice dice(1);
    for (int i = 0; i < 500; i++) {
        std::vector<int32_t> tokens, merged;
        Merging merging;
        for (const char c : dice.text("aabbc", 40)) {
            tokens.push_back(table.find({&c, 1}));
            merging.add(tokens.back());
        }
        merging.finish(table, merged);
        REQUIRE(merged == merge_plainly(table, tokens));
    }
    Merging merging;  // a run without spaces, as long as text may have
    std::vector<int32_t> merged;
    for (int i = 0; i < 1 << 20; i++) merging.add(table.find("a"));
    merging.finish(table, merged);
    REQUIRE(merged.size() == 1 << 18 && merged[0] == table.find("aaaa"));
}

// Encodes, whatever the vocabulary: tokens, or an error.
bool is_taken(const TokenTable& table, const std::string& pattern, const std::string& text) {
    try {
        Step split;
        split.pattern = Pattern(pattern);
        split.behavior = Step::Behavior::merged_with_next;
        Step replace;
        replace.kind = Step::Kind::replace;
        replace.pattern = Pattern::literal(" ");
        replace.text = "aa";
        AddedToken added{table.find("ab"), "ab", false, true, true, true};
        const Encoder encoder(table,
                              {.is_byte_level = table.has(200), .has_byte_fallback = true, .most_run = 7},
                              {replace}, {split}, {added});
        const std::vector<int32_t> ids = encoder.encode(text, false);
        return std::all_of(ids.begin(), ids.end(), [&](int32_t id) { return encoder.has(id); });
    } catch (const TokenizerError&) {
        return true;
    }
}

void test_damaged_files(const TokenTable& table) {
    const std::string good =
        "{\"a\": [1, \"\\ud83e\\udd99\"], \"model\": {\"type\": \"BPE\", \"vocab\": " + vocab_json(table) +
        ", \"merges\": " + merges_json(table) + "}}";
    const TokenizerJson read = read_tokenizer_json(good);
    REQUIRE(vocab_json(read.table) == vocab_json(table) && merges_json(read.table) == merges_json(table));
    REQUIRE(
        read.rest ==
        "{\"a\": [1, \"\\ud83e\\udd99\"], \"model\": {\"type\": \"BPE\", \"vocab\": {}, \"merges\": []}}");
    const std::string tiktoken = "YQ== 0\nYg== 1\nYWI= 2\nYWJhYg== 3\n";
    REQUIRE(read_tiktoken(tiktoken).n_merges() == 2);
    int refused = 0;
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        Dice dice(seed);
        std::string data = seed % 4 == 0 ? tiktoken : good;
        for (size_t n = dice.below(4) + 1; n > 0; n--) {
            const size_t at = dice.below(data.size());
            switch (dice.below(4)) {
                case 0:
                    data[at] = static_cast<char>(dice.below(256));
                    break;
                case 1:
                    data.erase(at, dice.below(50) + 1);
                    break;
                case 2:
                    data.insert(at, 1, "\"\\{}[],:0 \n="[dice.below(12)]);
                    break;
                default:
                    data.resize(at + 1);
            }
            if (data.empty()) data = "{";
        }
        try {
            const TokenTable damaged = seed % 4 == 0 ? read_tiktoken(data) : read_tokenizer_json(data).table;
            REQUIRE(is_taken(damaged, "a|b+", dice.text("ab \x80\xf0", 60)));
        } catch (const TokenizerError&) {
            refused++;
        }
    }
    REQUIRE(refused > 200);
}

void test_any_pattern(const TokenTable& table) {
    for (uint64_t seed = 1; seed <= 3000; seed++) {
        Dice dice(seed);
        const std::string pattern = dice.text("ab()[]{}?*+|^$.\\sSpLdnxi:=!>,123-\xc3\xa9", 14);
        REQUIRE(is_taken(table, pattern, dice.text("ab1\n \xc3\xa9\xff", 30)));
    }
    int64_t steps = 1000;
    const Pattern hostile("(a+)+$");
    bool is_refused = false;
    try {
        Span match{};
        Matcher(hostile, std::string(100, 'a') + "b", steps).next(match);
    } catch (const TokenizerError&) {
        is_refused = true;
    }
    REQUIRE(is_refused);
}

}  // namespace

void test_tokens() {
    const TokenTable table = small_table();
    test_merging(table);
    test_damaged_files(table);
    test_any_pattern(table);
}

}  // namespace puna::test
