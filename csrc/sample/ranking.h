// The tokens in the order of their weights, the heaviest first and the lower id first among equals, without
// sorting them: a walk over a histogram of the weights' upper bits, then of the lower bits within one bucket.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace puna {

class Ranking {
  public:
    // A beginning of the order.
    struct Prefix {
        int64_t count = 0;
        double mass = 0;    // sum of its weights
        int32_t last = -1;  // its last token
    };

    // weights [n], none negative or NaN, kept by the caller; n at least 1.
    Ranking(const float* weights, int64_t n);

    // Sum of all weights.
    double mass() const { return mass_; }

    // The shortest prefix of at least so many tokens and so much mass; all of the tokens where there is none.
    Prefix shortest(int64_t count, double mass) const;

    // The first `count` tokens in order, or all.
    std::vector<int32_t> heaviest(int64_t count) const;

    // Sum of the weights that are at least `floor`.
    double mass_from(float floor) const;

  private:
    // Weights of one bucket have the same exponent, so their sum is exact in double, in any order.
    struct Bucket {
        int64_t count = 0;
        double mass = 0;
    };
    struct Member {
        uint32_t bits;
        int32_t token;
    };
    template <std::size_t N, class Enough>
    static uint32_t walk(const std::array<Bucket, N>& buckets, Prefix& before, Enough enough);
    std::vector<Member> members(uint32_t bucket) const;

    static constexpr int kShift = 20;  // the sign, 8 bits of exponent, 3 of the fraction
    const float* weights_;
    int64_t n_;
    double mass_ = 0;
    std::array<Bucket, 1 << (32 - kShift)> buckets_{};
};

}  // namespace puna
