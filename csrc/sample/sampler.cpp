#include "sample/sampler.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/dispatch.h"

namespace puna {

namespace {

struct Candidate {
    int32_t token;
    float weight;
};

// The most likely first, the lower id first among equals: one order, whatever the path to it.
bool before(const Candidate& a, const Candidate& b) {
    return a.weight > b.weight || (a.weight == b.weight && a.token < b.token);
}

int32_t argmax(const float* x, int64_t n) {
    const float top = kernels().largest(x, n);
    return static_cast<int32_t>(std::find(x, x + n, top) - x);
}

// The smallest prefix of the sorted vocabulary that `is_enough` accepts, or all of it. Only tokens above a
// threshold are sorted, and the threshold falls until they suffice: tokens above it are always a prefix.
// weights are not negative, the largest is `top`.
template <class Enough>
std::vector<Candidate> likeliest(const float* weights, int64_t n, float top, Enough is_enough) {
    std::vector<Candidate> found;
    for (float threshold = top * 0.0078125f;; threshold *= 0.0078125f) {
        const bool is_last = threshold < 1e-30f;
        found.clear();
        for (int64_t i = 0; i < n; i++)
            if (is_last || weights[i] >= threshold) found.push_back({static_cast<int32_t>(i), weights[i]});
        std::sort(found.begin(), found.end(), before);
        const size_t keep = is_enough(found);
        if (keep <= found.size()) {
            found.resize(keep);
            return found;
        }
        if (is_last) return found;
    }
}

constexpr size_t kMore = SIZE_MAX;

// How many of `sorted` make up the share `top_p` of `total`, kMore where they do not.
size_t nucleus(const std::vector<Candidate>& sorted, size_t limit, float top_p, float total) {
    float sum = 0;
    for (size_t i = 0; i < limit; i++) {
        sum += sorted[i].weight;
        if (sum >= top_p * total) return i + 1;
    }
    return kMore;
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
    const bool limits = settings_.top_k > 0 || settings_.top_p < 1 || settings_.min_p > 0;
    const double u = uniform();
    if (!limits) {
        double sum = 0;
        for (int64_t i = 0; i < n; i++) {
            sum += weights[i];
            if (sum > u * total) return static_cast<int32_t>(i);
        }
        return argmax(logits, n);  // rounding left the sum a little under the total
    }
    const float floor = settings_.min_p;  // of the largest weight, which is 1
    const auto top_k = static_cast<size_t>(settings_.top_k);
    auto kept = likeliest(weights, n, 1.0f, [&](const std::vector<Candidate>& sorted) -> size_t {
        const bool has_all_above_floor = floor > 0 && !sorted.empty() && sorted.back().weight < floor;
        if (top_k > 0 && sorted.size() >= top_k) return top_k;
        if (top_k == 0 && settings_.top_p < 1) {
            const size_t keep = nucleus(sorted, sorted.size(), settings_.top_p, total);
            if (keep != kMore) return keep;
        }
        return has_all_above_floor ? sorted.size() : kMore;
    });
    if (top_k > 0 && settings_.top_p < 1) {
        float sum = 0;
        for (const Candidate& c : kept) sum += c.weight;
        kept.resize(std::min(kept.size(), nucleus(kept, kept.size(), settings_.top_p, sum)));
    }
    while (kept.size() > 1 && kept.back().weight < floor) kept.pop_back();
    double sum = 0, all = 0;
    for (const Candidate& c : kept) all += c.weight;
    for (const Candidate& c : kept) {
        sum += c.weight;
        if (sum > u * all) return c.token;
    }
    return kept.back().token;
}

Sample Sampler::pick(float* logits, int64_t n, std::vector<float>& scratch) {
    scratch.resize(static_cast<size_t>(n));
    Sample sample;
    const float top = kernels().largest(logits, n);
    const float total = kernels().exp_sum(logits, n, top, 1.0f, scratch.data());
    sample.is_finite = std::isfinite(top) && std::isfinite(total);
    if (!sample.is_finite) return sample;
    const bool wants_logprobs = settings_.top_logprobs >= 0;
    const float log_total = top + static_cast<float>(std::log(static_cast<double>(total)));
    if (settings_.top_logprobs > 0) {
        const auto wanted = static_cast<size_t>(std::min<int64_t>(settings_.top_logprobs, n));
        const auto best = likeliest(scratch.data(), n, 1.0f, [&](const std::vector<Candidate>& sorted) {
            return sorted.size() >= wanted ? wanted : kMore;
        });
        for (const Candidate& c : best) sample.top.emplace_back(c.token, logits[c.token] - log_total);
    }
    std::vector<float> original;  // the log-probability is the model's, from before the penalties
    const bool changes = has_penalties_ || !settings_.logit_bias.empty();
    if (wants_logprobs && changes) original.assign(logits, logits + n);
    if (changes) penalize(logits, n);
    sample.token = settings_.temperature > 0 ? draw(logits, n, scratch) : argmax(logits, n);
    if (wants_logprobs)
        sample.logprob = (original.empty() ? logits : original.data())[sample.token] - log_total;
    if (has_penalties_) uses_[sample.token].in_output++;
    n_picked_++;
    return sample;
}

}  // namespace puna
