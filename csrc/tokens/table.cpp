#include "tokens/table.h"

#include <algorithm>
#include <array>
#include <bit>
#include <random>

#include "tokens/error.h"
#include "tokens/hash.h"
#include "tokens/utf8.h"

namespace puna {

namespace {

constexpr uint32_t kTokenBits = 20, kMergeBits = 22;
constexpr uint32_t kTokenMask = (1u << kTokenBits) - 1, kMergeMask = (1u << kMergeBits) - 1;

// A slot for a number and a hash; never all ones, which is an empty slot: the highest tag is left out.
uint32_t slot_of(uint64_t hash, uint32_t number, uint32_t bits) {
    const uint32_t tags = (1u << (32 - bits)) - 1;
    return static_cast<uint32_t>((hash >> 40) % tags) << bits | number;
}

uint64_t hash_pair(int32_t left, int32_t right) {
    return mix_bits((static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right)) ^ hash_seed());
}

}  // namespace

uint64_t hash_seed() {
    static const uint64_t seed = static_cast<uint64_t>(std::random_device{}()) << 32 | std::random_device{}();
    return seed;
}

std::string quoted(std::string_view bytes, size_t most) {
    std::string text = "'";
    for (const char c : bytes.substr(0, most)) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte >= 0x20 && byte < 0x7f) {
            text += c;
        } else {
            text += "\\x";
            text += "0123456789abcdef"[byte >> 4];
            text += "0123456789abcdef"[byte & 15];
        }
    }
    return text + "'";
}

void TokenTable::add(std::string_view spelling, int64_t id) {
    PUNA_TOKENS_CHECK(
        id >= 0 && id < kMaxTokens,
        "token ids must lie from 0 to " + std::to_string(kMaxTokens - 1) + ", got " + std::to_string(id));
    PUNA_TOKENS_CHECK(is_utf8(spelling),
                      "token " + std::to_string(id) + " is not UTF-8: " + quoted(spelling));
    PUNA_TOKENS_CHECK(arena_.size() + spelling.size() < kAbsent, "the tokens are longer than 4 GB together");
    const auto i = static_cast<size_t>(id);
    if (i >= places_.size()) places_.resize(i + 1);
    PUNA_TOKENS_CHECK(places_[i].length == kAbsent, "two tokens have the id " + std::to_string(id) + ": " +
                                                        quoted(this->spelling(static_cast<int32_t>(id))) +
                                                        " and " + quoted(spelling));
    places_[i] = {static_cast<uint32_t>(arena_.size()), static_cast<uint32_t>(spelling.size())};
    arena_ += spelling;
}

void TokenTable::index_tokens() {
    arena_.shrink_to_fit();
    places_.shrink_to_fit();
    const auto n = static_cast<size_t>(
        std::count_if(places_.begin(), places_.end(), [](const Place& p) { return p.length != kAbsent; }));
    token_slots_.assign(std::bit_ceil(n * 3 / 2 + 1), kEmpty);
    const size_t mask = token_slots_.size() - 1;
    const uint64_t seed = hash_seed();
    for (int32_t id = 0; id < size(); id++) {
        if (!has(id)) continue;
        const std::string_view text = spelling(id);
        const uint64_t hash = hash_bytes(text, seed);
        const uint32_t slot = slot_of(hash, static_cast<uint32_t>(id), kTokenBits);
        size_t at = hash & mask;
        for (; token_slots_[at] != kEmpty; at = (at + 1) & mask) {
            const auto other = static_cast<int32_t>(token_slots_[at] & kTokenMask);
            PUNA_TOKENS_CHECK(((token_slots_[at] ^ slot) >> kTokenBits) != 0 || spelling(other) != text,
                              "tokens " + std::to_string(other) + " and " + std::to_string(id) +
                                  " are both " + quoted(text));
        }
        token_slots_[at] = slot;
    }
}

int32_t TokenTable::find(std::string_view text) const { return find(text, hash_bytes(text, hash_seed())); }

int32_t TokenTable::find(std::string_view text, uint64_t hash) const {
    const size_t mask = token_slots_.size() - 1;
    const uint32_t tag = slot_of(hash, 0, kTokenBits);
    for (size_t at = hash & mask; token_slots_[at] != kEmpty; at = (at + 1) & mask) {
        const auto id = static_cast<int32_t>(token_slots_[at] & kTokenMask);
        if ((token_slots_[at] & ~kTokenMask) == tag && spelling(id) == text) return id;
    }
    return kNoToken;
}

void TokenTable::find_all(const std::vector<std::string_view>& texts, std::vector<int32_t>& ids) const {
    constexpr size_t kBatch = 32;
    const size_t mask = token_slots_.size() - 1;
    const uint64_t seed = hash_seed();
    std::array<uint64_t, kBatch> hashes;
    ids.resize(texts.size());
    for (size_t first = 0; first < texts.size(); first += kBatch) {
        const size_t n = std::min(kBatch, texts.size() - first);
        // The place that a slot points to, for slots that are likely to be the ones.
        const auto place = [&](size_t i) -> const Place* {
            const uint32_t slot = token_slots_[hashes[i] & mask];
            const bool is_likely =
                slot != kEmpty && (slot & ~kTokenMask) == slot_of(hashes[i], 0, kTokenBits);
            return is_likely ? &places_[slot & kTokenMask] : nullptr;
        };
        for (size_t i = 0; i < n; i++) {
            hashes[i] = hash_bytes(texts[first + i], seed);
            __builtin_prefetch(&token_slots_[hashes[i] & mask]);
        }
        for (size_t i = 0; i < n; i++)
            if (const Place* p = place(i)) __builtin_prefetch(p);
        for (size_t i = 0; i < n; i++)
            if (const Place* p = place(i)) __builtin_prefetch(arena_.data() + p->offset);
        for (size_t i = 0; i < n; i++) ids[first + i] = find(texts[first + i], hashes[i]);
    }
}

void TokenTable::add_merge(int32_t left, int32_t right, int32_t result) {
    PUNA_TOKENS_CHECK(merges_.size() < kMaxMerges,
                      "may have " + std::to_string(kMaxMerges) + " merges, got more");
    merges_.push_back({left, right, result});
}

int32_t TokenTable::find_joined(std::string_view left, std::string_view right) const {
    // Files list the ways to build a token one after the other, and tokens in the order of their ids: a look
    // at these two spares most searches.
    if (!merges_.empty())
        for (int32_t id = merges_.back().result; id < merges_.back().result + 2; id++) {
            if (!has(id)) continue;
            const std::string_view text = spelling(id);
            const bool has_length = text.size() == left.size() + right.size();
            if (has_length && text.starts_with(left) && text.ends_with(right)) return id;
        }
    return find(std::string(left).append(right));
}

void TokenTable::add_merges(const std::vector<std::string_view>& parts) {
    std::vector<int32_t> ids;
    find_all(parts, ids);
    const auto check = [&](int32_t id, std::string_view text) {
        PUNA_TOKENS_CHECK(id != kNoToken, "merge " + std::to_string(merges_.size()) +
                                              " needs tokens of the vocabulary, got " + quoted(text));
    };
    for (size_t i = 0; i + 1 < parts.size(); i += 2) {
        check(ids[i], parts[i]);
        check(ids[i + 1], parts[i + 1]);
        const int32_t joined = find_joined(parts[i], parts[i + 1]);
        if (joined == kNoToken) check(joined, std::string(parts[i]).append(parts[i + 1]));
        add_merge(ids[i], ids[i + 1], joined);
    }
}

void TokenTable::add_merges_by_rank(const std::vector<int32_t>& tokens) {
    std::vector<int32_t> order(places_.size(), -1);
    for (size_t i = 0; i < tokens.size(); i++) {
        PUNA_TOKENS_CHECK(has(tokens[i]), "token " + std::to_string(tokens[i]) + " is not in the vocabulary");
        order[static_cast<size_t>(tokens[i])] = static_cast<int32_t>(i);
    }
    const auto is_usable = [&](int32_t id) { return id != kNoToken && order[static_cast<size_t>(id)] >= 0; };
    const auto before = [&](const Merge& a, const Merge& b) {
        return order[static_cast<size_t>(a.left)] < order[static_cast<size_t>(b.left)];
    };
    std::vector<Merge> ways;
    for (const int32_t id : tokens) {
        ways.clear();
        const std::string_view text = spelling(id);
        for (size_t cut = 1; cut < text.size(); cut++) {
            if (is_continuation(text[cut])) continue;
            const int32_t left = find(text.substr(0, cut));
            if (!is_usable(left)) continue;
            const int32_t right = find(text.substr(cut));
            if (is_usable(right)) ways.push_back({left, right, id});
        }
        std::sort(ways.begin(), ways.end(), before);
        for (const Merge& way : ways) add_merge(way.left, way.right, way.result);
    }
}

void TokenTable::index_merges() {
    merges_.shrink_to_fit();
    merge_slots_.assign(std::bit_ceil(merges_.size() * 3 / 2 + 1), kEmpty);
    const size_t mask = merge_slots_.size() - 1;
    for (uint32_t rank = 0; rank < merges_.size(); rank++) {
        const Merge& m = merges_[rank];
        const uint64_t hash = hash_pair(m.left, m.right);
        const uint32_t slot = slot_of(hash, rank, kMergeBits);
        size_t at = hash & mask;
        for (; merge_slots_[at] != kEmpty; at = (at + 1) & mask) {
            const Merge& other = merges_[merge_slots_[at] & kMergeMask];
            if (other.left == m.left && other.right == m.right) break;
        }
        merge_slots_[at] = slot;
    }
}

uint32_t TokenTable::rank(int32_t left, int32_t right) const {
    const size_t mask = merge_slots_.size() - 1;
    const uint64_t hash = hash_pair(left, right);
    const uint32_t tag = slot_of(hash, 0, kMergeBits);
    for (size_t at = hash & mask; merge_slots_[at] != kEmpty; at = (at + 1) & mask) {
        if ((merge_slots_[at] & ~kMergeMask) != tag) continue;
        const Merge& m = merges_[merge_slots_[at] & kMergeMask];
        if (m.left == left && m.right == right) return merge_slots_[at] & kMergeMask;
    }
    return kMaxMerges;
}

}  // namespace puna
