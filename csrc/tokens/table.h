// A vocabulary: tokens by id and by spelling, and the merges that build them. Spellings are those of the
// file, in UTF-8: a byte-level vocabulary's are in GPT-2's alphabet.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace puna {

// Eight times Llama 3's on both counts, and few enough for 20 and 22 bits.
inline constexpr uint32_t kMaxTokens = 1u << 20, kMaxMerges = (1u << 22) - 1;
inline constexpr int32_t kNoToken = -1;

struct Merge {
    int32_t left, right, result;
};

class TokenTable {
  public:
    // A table is built in this order: tokens, `index_tokens`, merges by rank, `index_merges`.
    void add(std::string_view spelling, int64_t id);
    // Throws where two tokens have the same spelling.
    void index_tokens();
    // The pair that is next in rank; of two ranks of one pair the later counts.
    void add_merge(int32_t left, int32_t right, int32_t result);
    // The same, spelled, as a file has it: left part, right part, left part, ...
    void add_merges(const std::vector<std::string_view>& parts);
    // Every way to put one of the tokens together from two others of them, in the order of `tokens`; pairs
    // that build the same token by the place of the left part.
    void add_merges_by_rank(const std::vector<int32_t>& tokens);
    void index_merges();

    // kNoToken where there is none.
    int32_t find(std::string_view spelling) const;
    // The same for many at once, several times as fast: the waits for memory overlap.
    void find_all(const std::vector<std::string_view>& spellings, std::vector<int32_t>& ids) const;
    // The rank of the merge of two tokens, kMaxMerges where they do not merge.
    uint32_t rank(int32_t left, int32_t right) const;
    const Merge& merge(uint32_t rank) const { return merges_[rank]; }
    size_t n_merges() const { return merges_.size(); }

    bool has(int32_t id) const {
        return id >= 0 && static_cast<size_t>(id) < places_.size() &&
               places_[static_cast<size_t>(id)].length != kAbsent;
    }
    std::string_view spelling(int32_t id) const {
        const Place& place = places_[static_cast<size_t>(id)];
        return {arena_.data() + place.offset, place.length};
    }
    // One more than the highest id.
    int32_t size() const { return static_cast<int32_t>(places_.size()); }

  private:
    static constexpr uint32_t kAbsent = UINT32_MAX, kEmpty = UINT32_MAX;
    int32_t find(std::string_view spelling, uint64_t hash) const;
    int32_t find_joined(std::string_view left, std::string_view right) const;
    struct Place {
        uint32_t offset = 0, length = kAbsent;
    };
    std::string arena_;  // all spellings, one after the other
    std::vector<Place> places_;
    std::vector<Merge> merges_;  // by rank
    // Open addressing; a slot is a number and, above its bits, some of the hash, which spares most
    // comparisons.
    std::vector<uint32_t> token_slots_{kEmpty};  // id in 20 bits
    std::vector<uint32_t> merge_slots_{kEmpty};  // rank in 22 bits
};

}  // namespace puna
