// Runs a model: one call is the whole forward pass of a batch, on all threads.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "cache/cache.h"
#include "model/batch.h"
#include "model/model.h"
#include "sample/sampler.h"
#include "threads/pool.h"

namespace puna {

class Runner {
  public:
    // left_out: ids that the vocabulary leaves out, whose rows only pad the head; they are never picked.
    Runner(const Model& model, Cache& cache, int n_threads, std::vector<int32_t> left_out = {});
    // On the threads of another runner; one of the two computes at a time.
    Runner(const Model& model, Cache& cache, const Runner& other, std::vector<int32_t> left_out = {});
    ~Runner();

    const ModelConfig& config() const { return model_.config; }
    int n_threads() const { return pool_->size(); }

    // The next tokens of each sampler; samplers[i] belongs to output_rows[i]. Where a sampler has several
    // rows, which follow each other, the tokens in the later ones are guesses: a row counts if the token
    // picked before it is the one in it. So there are 1 to as many tokens as the sampler has rows.
    // allowed[i]: the tokens that output row i may give, as in Sampler::pick; null for all of them.
    std::vector<std::vector<Sample>> sample(const Batch& batch, const std::vector<Sampler*>& samplers,
                                            const std::vector<const uint32_t*>& allowed);

    // The next token at an output row of the last call of `sample`, by its number among them, if other tokens
    // are allowed. Only for samplers that take the likeliest, and where no mask was there before: then the
    // logits are still the model's.
    Sample pick_again(int64_t output, Sampler& sampler, const uint32_t* allowed);

    // Logits of the output rows, [rows][vocab_size], into `out`.
    void logits(const Batch& batch, float* out);

    // What the head reads of the output rows, [rows][dim], into `out`: the final hidden states after the last
    // norm and, where there is one, the matrix behind it.
    void hidden(const Batch& batch, float* out);

  private:
    struct Workspace;
    class Forward;

    Runner(const Model& model, Cache& cache, std::shared_ptr<ThreadPool> pool, std::vector<int32_t> left_out);
    void check(const Batch& batch) const;
    template <class After>
    void run(const Batch& batch, bool with_head, int64_t n_jobs, After after);

    const Model& model_;
    Cache& cache_;
    std::shared_ptr<ThreadPool> pool_;
    std::unique_ptr<Workspace> space_;
    std::vector<int32_t> left_out_;
    int64_t n_sampled_ = 0;  // output rows whose logits are those of the last call of `sample`
};

}  // namespace puna
