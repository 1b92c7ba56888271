#include "sample/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels/dispatch.h"
#include "sample/ranking.h"

namespace puna {

namespace {

int32_t argmax(const float* x, int64_t n) {
    const float top = kernels().largest(x, n);
    return static_cast<int32_t>(std::find(x, x + n, top) - x);
}

// The first token, in the order of ids, with which the sum of weights is more than the share u of all; u < 1.
// Sums of runs come first, each in lanes: one addition after the other would take longer than the rest.
int32_t at_share(const float* weights, int64_t n, double u) {
    constexpr int64_t kRun = 256, kLanes = 8;
    std::vector<double> runs;
    double total = 0;
    for (int64_t first = 0; first < n; first += kRun) {
        double lanes[kLanes] = {}, sum = 0;
        const int64_t whole = first + std::min(kRun, n - first) / kLanes * kLanes;
        int64_t i = first;
        for (; i < whole; i += kLanes)
            for (int64_t j = 0; j < kLanes; j++) lanes[j] += weights[i + j];
        for (; i < std::min(first + kRun, n); i++) lanes[0] += weights[i];
        for (const double lane : lanes) sum += lane;
        runs.push_back(sum);
        total += sum;
    }
    double sum = 0;
    size_t run = 0;
    for (; run + 1 < runs.size() && sum + runs[run] <= u * total; run++) sum += runs[run];
    int64_t last = 0;
    for (int64_t i = static_cast<int64_t>(run) * kRun; i < n; i++) {
        if (weights[i] == 0) continue;
        last = i;
        sum += weights[i];
        if (sum > u * total) break;
    }
    return static_cast<int32_t>(last);  // rounding may leave the sum a little short
}

// Without branches: which tokens are allowed no processor can guess.
void forbid(float* logits, int64_t n, const uint32_t* allowed) {
    constexpr int64_t kBits = 32;
    constexpr auto kNever = std::bit_cast<uint32_t>(-std::numeric_limits<float>::infinity());
    for (int64_t first = 0; first < n; first += kBits) {
        const uint32_t bits = allowed[first / kBits];
        if (bits == ~uint32_t{0}) continue;
        const int64_t count = std::min(kBits, n - first);
        for (int64_t i = 0; i < count; i++) {
            const uint32_t kept = 0 - (bits >> i & 1);
            const auto logit = std::bit_cast<uint32_t>(logits[first + i]);
            logits[first + i] = std::bit_cast<float>((logit & kept) | (kNever & ~kept));
        }
    }
}

// SplitMix64 (Steele, Lea and Flood 2014): a hash good enough to number independent draws.
uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

}  // namespace

Sampler::Sampler(SamplingSettings settings) : settings_(std::move(settings)) {
    has_penalties_ = settings_.repetition_penalty != 1 || settings_.frequency_penalty != 0 ||
                     settings_.presence_penalty != 0;
    changes_logits_ = has_penalties_ || !settings_.logit_bias.empty();
}

void Sampler::observe(const int32_t* tokens, int64_t n) {
    if (!has_penalties_) return;
    for (int64_t i = 0; i < n; i++) uses_[tokens[i]].in_prompt = true;
}

void Sampler::penalize(float* logits, int64_t n) const {
    for (const auto& [token, bias] : settings_.logit_bias)
        if (token < n) logits[token] += bias;
    for (const auto& [token, use] : uses_) {
        if (token >= n) continue;
        float& logit = logits[token];
        logit = logit > 0 ? logit / settings_.repetition_penalty : logit * settings_.repetition_penalty;
        if (use.in_output == 0) continue;
        logit -= settings_.frequency_penalty * static_cast<float>(use.in_output) + settings_.presence_penalty;
    }
}

double Sampler::uniform() const {
    const uint64_t bits = mix(mix(settings_.seed) ^ n_picked_);
    return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

int32_t Sampler::draw(const float* logits, int64_t n, std::vector<float>& scratch) const {
    const float top = kernels().largest(logits, n);
    float* weights = scratch.data();
    const float total = kernels().exp_sum(logits, n, top, 1.0f / settings_.temperature, weights);
    // A temperature next to 0, or a penalty that made a logit infinite.
    if (!std::isfinite(total)) return argmax(logits, n);
    const bool limits = settings_.top_k > 0 || settings_.top_p < 1 || settings_.min_p > 0;
    const double u = uniform();
    if (!limits) return at_share(weights, n, u);
    const Ranking ranking(weights, n);
    double kept = ranking.mass();
    if (settings_.top_k > 0) kept = ranking.shortest(settings_.top_k, 0).mass;
    if (settings_.top_p < 1) kept = ranking.shortest(1, settings_.top_p * kept).mass;
    if (settings_.min_p > 0) kept = std::min(kept, ranking.mass_from(settings_.min_p));
    return ranking.shortest(1, std::nextafter(u * kept, 2 * kept)).last;  // more than the share u
}

Sample Sampler::pick(float* logits, int64_t n, std::vector<float>& scratch, const uint32_t* allowed) {
    scratch.resize(static_cast<size_t>(n));
    if (allowed != nullptr) forbid(logits, n, allowed);
    Sample sample;
    const float top = kernels().largest(logits, n);
    const float total = kernels().exp_sum(logits, n, top, 1.0f, scratch.data());
    sample.is_finite = std::isfinite(top) && std::isfinite(total);
    if (!sample.is_finite) return sample;
    const bool wants_logprobs = settings_.top_logprobs >= 0;
    const float log_total = top + static_cast<float>(std::log(static_cast<double>(total)));
    if (settings_.top_logprobs > 0) {
        for (const int32_t token : Ranking(scratch.data(), n).heaviest(settings_.top_logprobs))
            if (std::isfinite(logits[token])) sample.top.emplace_back(token, logits[token] - log_total);
    }
    std::vector<float> original;  // the log-probability is the model's, from before the penalties
    if (wants_logprobs && changes_logits_) original.assign(logits, logits + n);
    if (changes_logits_) penalize(logits, n);
    sample.token = settings_.temperature > 0 ? draw(logits, n, scratch) : argmax(logits, n);
    if (wants_logprobs)
        sample.logprob = (original.empty() ? logits : original.data())[sample.token] - log_total;
    if (has_penalties_) uses_[sample.token].in_output++;
    n_picked_++;
    return sample;
}

}  // namespace puna
