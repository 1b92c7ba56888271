#include "sample/sampler.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "tests/check.h"

namespace puna::test {

namespace {

Sample pick(Sampler& sampler, std::vector<float> logits) {
    std::vector<float> scratch;
    return sampler.pick(logits.data(), static_cast<int64_t>(logits.size()), scratch);
}

std::map<int32_t, int> draws(SamplingSettings settings, const std::vector<float>& logits) {
    std::map<int32_t, int> counts;
    for (uint64_t seed = 0; seed < 4000; seed++) {
        settings.seed = seed;
        Sampler sampler(settings);
        counts[pick(sampler, logits).token]++;
    }
    return counts;
}

}  // namespace

void test_sampler() {
    // Probabilities 0.5, 0.25, 0.125, 0.0625, 0.0625.
    const std::vector<float> logits = {std::log(4.0f), std::log(8.0f), std::log(2.0f), 0.0f, 0.0f};
    SamplingSettings greedy;
    greedy.top_logprobs = 2;
    Sampler sampler(greedy);
    const Sample best = pick(sampler, logits);
    REQUIRE(best.token == 1 && std::fabs(best.logprob - std::log(0.5f)) < 1e-6f);
    REQUIRE(best.top.size() == 2 && best.top[1].first == 0);

    SamplingSettings plain;
    plain.temperature = 1;
    auto counts = draws(plain, logits);
    REQUIRE(std::abs(counts[1] - 2000) < 150 && std::abs(counts[0] - 1000) < 130 && counts[4] > 150);

    SamplingSettings nucleus = plain;
    nucleus.top_p = 0.7f;
    counts = draws(nucleus, logits);
    REQUIRE(counts.size() == 2 && std::abs(counts[1] - 2667) < 150);

    SamplingSettings top_k = plain;
    top_k.top_k = 3;
    REQUIRE(draws(top_k, logits).size() == 3);

    SamplingSettings min_p = plain;
    min_p.min_p = 0.2f;
    REQUIRE(draws(min_p, logits).size() == 3);

    // A penalty on the best token leaves the second best.
    SamplingSettings penalty;
    penalty.presence_penalty = 2;
    Sampler penalized(penalty);
    REQUIRE(pick(penalized, logits).token == 1 && pick(penalized, logits).token == 0);

    SamplingSettings bias;
    bias.logit_bias = {{4, 50.0f}};
    Sampler biased(bias);
    REQUIRE(pick(biased, logits).token == 4);

    std::vector<float> broken = logits;
    broken[2] = std::nanf("");
    Sampler other(greedy);
    REQUIRE(!pick(other, broken).is_finite);
}

}  // namespace puna::test
