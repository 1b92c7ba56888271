#include "sample/ranking.h"

#include <algorithm>
#include <bit>

namespace puna {

Ranking::Ranking(const float* weights, int64_t n) : weights_(weights), n_(n) {
    for (int64_t i = 0; i < n; i++) {
        Bucket& bucket = buckets_[std::bit_cast<uint32_t>(weights[i]) >> kShift];
        bucket.count++;
        bucket.mass += weights[i];
    }
    for (size_t b = buckets_.size(); b-- > 0;) mass_ += buckets_[b].mass;
}

// The first bucket, from the heaviest on, with which the prefix is enough; `before` grows by those above it.
// Rounding may leave a sum a little short: then it is the last bucket that has anything.
template <std::size_t N, class Enough>
uint32_t Ranking::walk(const std::array<Bucket, N>& buckets, Prefix& before, Enough enough) {
    size_t found = 0;
    Prefix after = before;
    for (size_t b = N; b-- > 0;) {
        if (buckets[b].count == 0) continue;
        found = b;
        before = after;
        after.count += buckets[b].count;
        after.mass += buckets[b].mass;
        if (enough(after)) break;
    }
    return static_cast<uint32_t>(found);
}

std::vector<Ranking::Member> Ranking::members(uint32_t bucket) const {
    std::vector<Member> found;
    found.reserve(static_cast<size_t>(buckets_[bucket].count));
    const auto bits = [&](int64_t i) { return std::bit_cast<uint32_t>(weights_[i]); };
    constexpr int64_t kRun = 32;  // most runs have none: a loop without branches sees that first
    for (int64_t first = 0; first < n_; first += kRun) {
        if (first + kRun <= n_) {
            uint32_t has_any = 0;
            for (int64_t i = 0; i < kRun; i++) has_any |= bits(first + i) >> kShift == bucket;
            if (!has_any) continue;
        }
        for (int64_t i = first; i < std::min(first + kRun, n_); i++)
            if (bits(i) >> kShift == bucket) found.push_back({bits(i), static_cast<int32_t>(i)});
    }
    return found;
}

Ranking::Prefix Ranking::shortest(int64_t count, double mass) const {
    const auto enough = [&](const Prefix& p) { return p.count >= count && p.mass >= mass; };
    Prefix prefix;
    std::vector<Member> left = members(walk(buckets_, prefix, enough));
    for (int shift = kShift - 10; shift >= 0; shift -= 10) {
        const auto digit = [&](const Member& m) { return m.bits >> shift & 1023; };
        std::array<Bucket, 1024> buckets{};
        for (const Member& m : left) {
            buckets[digit(m)].count++;
            buckets[digit(m)].mass += std::bit_cast<float>(m.bits);
        }
        const uint32_t found = walk(buckets, prefix, enough);
        std::erase_if(left, [&](const Member& m) { return digit(m) != found; });
    }
    for (const Member& m : left) {  // all of one weight, in the order of their ids
        prefix.count++;
        prefix.mass += std::bit_cast<float>(m.bits);
        prefix.last = m.token;
        if (enough(prefix)) break;
    }
    return prefix;
}

std::vector<int32_t> Ranking::heaviest(int64_t count) const {
    const int32_t last = shortest(count, 0).last;
    const auto before = [&](int32_t a, int32_t b) {
        return weights_[a] > weights_[b] || (weights_[a] == weights_[b] && a < b);
    };
    std::vector<int32_t> tokens;
    for (int32_t i = 0; i < n_; i++)
        if (!before(last, i)) tokens.push_back(i);
    std::sort(tokens.begin(), tokens.end(), before);
    return tokens;
}

double Ranking::mass_from(float floor) const {
    const uint32_t at = std::bit_cast<uint32_t>(floor) >> kShift;
    double mass = 0, rest = 0;
    for (size_t b = buckets_.size(); b-- > at + 1;) mass += buckets_[b].mass;
    for (const Member& m : members(at)) {
        const auto weight = std::bit_cast<float>(m.bits);
        if (weight >= floor) rest += weight;
    }
    return mass + rest;
}

}  // namespace puna
