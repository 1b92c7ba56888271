// Picks the next token of one request. A pick depends on the logits, the settings, the seed and the number
// of tokens picked before: never on what else is in the batch.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

namespace puna {

struct SamplingSettings {
    float temperature = 0;  // 0: the most likely token
    int32_t top_k = 0;      // 0: all
    float top_p = 1;
    float min_p = 0;
    float repetition_penalty = 1;  // over prompt and output: positive logits divided, negative multiplied
    float frequency_penalty = 0;   // over output: subtracted once a use
    float presence_penalty = 0;    // over output: subtracted once
    uint64_t seed = 0;
    int32_t top_logprobs = -1;  // -1: no log-probabilities; n: also those of the n most likely tokens
    std::vector<std::pair<int32_t, float>> logit_bias;
};

struct Sample {
    int32_t token = -1;
    bool is_finite = true;  // false: the model gave NaN, or nothing but infinities
    float logprob = 0;      // of the model's own distribution over what is allowed, before any setting
    std::vector<std::pair<int32_t, float>> top;
};

class Sampler {
  public:
    explicit Sampler(SamplingSettings settings);

    // Tokens of the prompt, for the repetition penalty.
    void observe(const int32_t* tokens, int64_t n);

    // logits [n], changed in place; scratch grows to n floats. Counts the picked token.
    // allowed: a bit a token from the lowest on, [(n + 31) / 32]; null for all. What is not allowed has no
    // probability: not in the draw, and not in the log-probabilities.
    Sample pick(float* logits, int64_t n, std::vector<float>& scratch, const uint32_t* allowed = nullptr);

    const SamplingSettings& settings() const { return settings_; }
    // Whether a pick is the largest logit as the model gave it: no draw, and nothing is added to logits.
    bool takes_likeliest() const { return settings_.temperature == 0 && !changes_logits_; }

  private:
    struct Uses {
        bool in_prompt = false;
        int32_t in_output = 0;
    };
    void penalize(float* logits, int64_t n) const;
    int32_t draw(const float* logits, int64_t n, std::vector<float>& scratch) const;
    double uniform() const;

    SamplingSettings settings_;
    std::unordered_map<int32_t, Uses> uses_;
    bool has_penalties_;
    bool changes_logits_;
    uint64_t n_picked_ = 0;
};

}  // namespace puna
