#include "model/runner.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <unordered_set>
#include <utility>

#include "base/check.h"
#include "kernels/dispatch.h"
#include "model/attention.h"
#include "model/rows.h"

namespace puna {

// Buffers of a step, kept from step to step; [rows of the step][width].
struct Runner::Workspace {
    Workspace(const ModelConfig& c, const Cache& cache, int n_threads)
        : residual(c.dim),
          delta(c.dim),
          normed(c.dim),
          query(c.q_dim()),
          key(c.kv_dim()),
          value(c.kv_dim()),
          attended(c.q_dim()),
          gate(c.ffn_dim),
          up(c.ffn_dim),
          rope(c.head_dim),
          unrotated(c.dim),
          final_hidden(c.dim),
          logits(c.vocab_size),
          low{QuantizedRows(c.lora_rank), QuantizedRows(c.lora_rank), QuantizedRows(c.lora_rank)},
          lifted(widest_output(c)),
          attention(c, cache, n_threads),
          last_attention(c, cache, n_threads),
          config(c) {}

    void reserve(int64_t tokens, int64_t outputs, bool with_head) {
        for (Rows* rows : {&residual, &delta, &query, &key, &value, &up, &rope}) rows->reserve(tokens);
        for (QuantizedRows* rows : {&normed, &attended, &gate}) rows->reserve(tokens);
        final_hidden.reserve(outputs);
        if (config.has_output_rotation) unrotated.reserve(outputs);
        if (with_head) logits.reserve(outputs);
        if (config.lora_rank == 0) return;
        for (QuantizedRows& rows : low) rows.reserve(tokens);
        lifted.reserve(tokens);
    }
    // Of linears that share an input: padded outputs of all of them together.
    static int64_t widest_output(const ModelConfig& c) {
        const auto padded = [](int64_t rows) { return round_up(rows, kTileRows); };
        return std::max({padded(c.q_dim()) + 2 * padded(c.kv_dim()), 2 * padded(c.ffn_dim), padded(c.dim)});
    }

    Rows residual, delta;
    QuantizedRows normed;
    Rows query, key, value;
    QuantizedRows attended, gate;
    Rows up;
    Rows rope;                // cosines, then sines, of the row's position
    QuantizedRows unrotated;  // the last norm's output, where a matrix stands between it and the head
    QuantizedRows final_hidden;
    Rows logits;
    std::array<QuantizedRows, 3> low;     // of adaptors: A x, for linears that share an input
    Rows lifted;                          // B (A x), those linears side by side
    Attention attention, last_attention;  // of all tokens; of the output rows, in the last layer
    const ModelConfig& config;
    std::vector<std::vector<float>> sampler_scratch;
};

namespace {

// A token of the batch: where its sequence's blocks are and where it stands in them.
struct Token {
    const SequenceSlice* slice;
    int64_t position;
    int64_t row;  // of the batch
};

}  // namespace

// One forward pass, as every thread runs it: phases between barriers. Products are dealt out, all else
// is split by thread number.
//
// Of the last layer all tokens need keys and values; what lies behind these is computed for output rows only.
class Runner::Forward {
  public:
    Forward(const Model& model, const Cache& cache, Workspace& space, const Batch& batch)
        : model_(model),
          config_(model.config),
          cache_(cache),
          space_(space),
          batch_(batch),
          kernels_(puna::kernels()),
          all_{{}, space.attention, space.residual, space.delta},
          // The delta of all tokens is not needed any more when the outputs' rows are kept there.
          outputs_{{}, space.last_attention, space.delta, space.residual} {
        for (const SequenceSlice& slice : batch.slices)
            for (int64_t i = 0; i < slice.n_tokens; i++)
                all_.tokens.push_back({&slice, slice.position + i, all_.rows()});
        all_.attention.plan(batch.slices);
        for (const int64_t row : batch.output_rows)
            outputs_.tokens.push_back(all_.tokens[static_cast<size_t>(row)]);
        if (!narrows()) return;
        for (const auto& [slice, position, row] : outputs_.tokens) {
            SequenceSlice* last = output_slices_.empty() ? nullptr : &output_slices_.back();
            if (last != nullptr && last->blocks == slice->blocks &&
                last->position + last->n_tokens == position)
                last->n_tokens++;
            else
                output_slices_.push_back({1, position, slice->blocks, slice->n_blocks});
        }
        outputs_.attention.plan(output_slices_);
    }

    void run(Worker& worker, bool with_head) {
        embed(worker);
        const int64_t last = static_cast<int64_t>(model_.layers.size()) - 1;
        for (int64_t i = 0; i < last; i++) {
            attend(worker, i);
            feed_forward(worker, all_, i);
        }
        narrows() ? attend_outputs(worker, last) : attend(worker, last);
        const Part& part = narrows() ? outputs_ : all_;
        feed_forward(worker, part, last);
        wait(worker, {&model_.head});
        final_norm(worker, part);
        if (!with_head) return;
        wait(worker, {&model_.head});
        multiply(worker, space_.final_hidden, {{&model_.head, &space_.logits}}, part.rows());
    }

  private:
    struct Job {
        const Linear* linear;
        Rows* out;
    };
    // Tokens that a layer computes: rows of the buffers from the first one on.
    struct Part {
        std::vector<Token> tokens;
        Attention& attention;
        Rows &residual, &delta;  // delta: what the layer before adds to the residual

        int64_t rows() const { return static_cast<int64_t>(tokens.size()); }
    };

    bool narrows() const { return outputs_.rows() < all_.rows(); }

    void attend(Worker& worker, int64_t index) {
        const Layer& layer = layer_at(index);
        wait(worker, {&layer.q, &layer.k, &layer.v});
        norm(worker, all_, layer.attention_norm, index > 0, {&layer.q, &layer.k, &layer.v});
        wait(worker, {&layer.q, &layer.k, &layer.v});
        multiply(worker, space_.normed,
                 {{&layer.q, &space_.query}, {&layer.k, &space_.key}, {&layer.v, &space_.value}},
                 all_.rows());
        wait(worker, {&layer.o});
        rotate(worker, all_);
        store(worker, index);
        look_back(worker, all_, index);
    }

    void attend_outputs(Worker& worker, int64_t index) {
        const Layer& layer = layer_at(index);
        wait(worker, {&layer.k, &layer.v});
        norm(worker, all_, layer.attention_norm, index > 0, {&layer.k, &layer.v});
        wait(worker, {&layer.k, &layer.v});
        multiply(worker, space_.normed, {{&layer.k, &space_.key}, {&layer.v, &space_.value}}, all_.rows());
        wait(worker, {&layer.q});
        store(worker, index);
        keep_outputs(worker);
        norm(worker, outputs_, layer.attention_norm, false, {&layer.q});
        wait(worker, {&layer.q});
        multiply(worker, space_.normed, {{&layer.q, &space_.query}}, outputs_.rows());
        wait(worker, {&layer.o});
        rotate(worker, outputs_);
        look_back(worker, outputs_, index);
    }

    void feed_forward(Worker& worker, const Part& part, int64_t index) {
        const Layer& layer = layer_at(index);
        wait(worker, {&layer.gate, &layer.up});
        norm(worker, part, layer.ffn_norm, true, {&layer.gate, &layer.up});
        wait(worker, {&layer.gate, &layer.up});
        multiply(worker, space_.normed, {{&layer.gate, &space_.gate.values}, {&layer.up, &space_.up}},
                 part.rows());
        wait(worker, {&layer.down});
        activate(worker, part, layer.down);
        wait(worker, {&layer.down});
        multiply(worker, space_.gate, {{&layer.down, &part.delta}}, part.rows());
    }

    const Layer& layer_at(int64_t index) const { return model_.layers[static_cast<size_t>(index)]; }

    void embed(Worker& worker) {
        const Weight& table = model_.embedding;
        const auto [begin, end] = worker.share(all_.rows());
        for (int64_t t = begin; t < end; t++) {
            kernels_.unpack_row(table.format, table.data, table.padded_columns(),
                                batch_.tokens[static_cast<size_t>(t)], all_.residual.row(t));
            // In double: a float angle at position 100,000 is off by thousandths of a radian.
            float* rope = space_.rope.row(t);
            const int64_t half = config_.head_dim / 2;
            for (int64_t i = 0; i < half; i++) {
                const double angle = static_cast<double>(all_.tokens[static_cast<size_t>(t)].position) *
                                     config_.rope_frequencies[static_cast<size_t>(i)];
                rope[i] = static_cast<float>(std::cos(angle));
                rope[half + i] = static_cast<float>(std::sin(angle));
            }
        }
    }

    template <size_t N>
    void norm(Worker& worker, const Part& part, const float* gain, bool has_delta,
              const Linear* const (&readers)[N]) {
        Needs needs;
        for (const Linear* reader : readers) needs.add(*reader);
        const auto [begin, end] = worker.share(part.rows());
        for (int64_t t = begin; t < end; t++) {
            kernels_.add_rms_norm(part.residual.row(t), has_delta ? part.delta.row(t) : nullptr, gain,
                                  config_.norm_eps, config_.dim, space_.normed.values.row(t));
            space_.normed.prepare(kernels_, needs, t);
        }
        reduce(space_.normed, readers, begin, end);
    }

    // The first half of adaptors, A x, of the rows that this thread has made.
    template <size_t N>
    void reduce(const QuantizedRows& in, const Linear* const (&readers)[N], int64_t begin, int64_t end) {
        for (size_t i = 0; i < N && readers[i]->has_adaptor() && begin < end; i++) {
            const Weight& a = readers[i]->a;
            QuantizedRows& low = space_.low[i];
            kernels_.matmul({a.format, a.data, a.padded_columns(), 0, a.tiles(), in.view(begin, end),
                             low.values.row(begin), low.values.stride()});
            Needs needs;
            needs.add(readers[i]->b);
            for (int64_t t = begin; t < end; t++) low.prepare(kernels_, needs, t);
        }
    }

    // The second half: adds B (A x) to tiles [first, last) of a linear's output. `room` is where its tiles
    // begin among those of all that share the input.
    void lift(const Linear& linear, const QuantizedRows& low, int64_t first, int64_t last, int64_t room,
              int64_t rows, const Rows& out) {
        const Weight& b = linear.b;
        float* lifted = space_.lifted.row(0) + kTileRows * room;
        const int64_t stride = space_.lifted.stride(), begin = kTileRows * first;
        kernels_.matmul({b.format, b.data, b.padded_columns(), first, last, low.view(rows), lifted, stride});
        for (int64_t i = 0; i < rows; i++)
            kernels_.add_scaled(out.row(i) + begin, lifted + i * stride + begin, config_.lora_scale,
                                kTileRows * (last - first));
    }

    // Products that share an input, their tiles dealt out as if they were one matrix.
    template <size_t N>
    void multiply(Worker& worker, const QuantizedRows& in, const Job (&jobs)[N], int64_t rows) {
        if (rows == 0) return;
        int64_t total = 0;
        for (const Job& job : jobs) total += job.linear->weight.tiles();
        worker.deal(total, [&](int64_t begin, int64_t end) {
            int64_t room = 0;
            for (size_t i = 0; i < N; i++) {
                const auto& [linear, out] = jobs[i];
                const Weight& w = linear->weight;
                const int64_t first = std::max(begin - room, int64_t{0}),
                              last = std::min(end - room, w.tiles());
                if (first < last) {
                    kernels_.matmul({w.format, w.data, w.padded_columns(), first, last, in.view(rows),
                                     out->row(0), out->stride()});
                    if (linear->has_adaptor()) lift(*linear, space_.low[i], first, last, room, rows, *out);
                }
                room += w.tiles();
            }
        });
    }

    // Waits for the others, and fetches what this thread will multiply with first.
    template <size_t N>
    void wait(Worker& worker, const Linear* const (&next)[N]) {
        int64_t total = 0;
        for (const Linear* linear : next) total += linear->weight.tiles();
        int64_t tile = worker.share(total).begin;
        size_t i = 0;
        while (i + 1 < N && tile >= next[i]->weight.tiles()) tile -= next[i++]->weight.tiles();
        const Weight& w = next[i]->weight;
        const int64_t bytes = tile_bytes(w.format, w.padded_columns());
        worker.barrier({w.data + tile * bytes, (w.tiles() - tile) * bytes});
    }

    void rotate(Worker& worker, const Part& part) {
        const int64_t head_dim = config_.head_dim;
        const auto [begin, end] = worker.share(part.rows());
        for (int64_t i = begin; i < end; i++) {
            const float* cosine = space_.rope.row(part.tokens[static_cast<size_t>(i)].row);
            kernels_.rope(space_.query.row(i), config_.n_heads, head_dim, cosine, cosine + head_dim / 2);
        }
    }

    // Keys, rotated, and values into the cache.
    void store(Worker& worker, int64_t layer) {
        const int64_t head_dim = config_.head_dim;
        const auto [begin, end] = worker.share(all_.rows());
        for (int64_t t = begin; t < end; t++) {
            const float* cosine = space_.rope.row(t);
            kernels_.rope(space_.key.row(t), config_.n_kv_heads, head_dim, cosine, cosine + head_dim / 2);
            const auto& [slice, position, row] = all_.tokens[static_cast<size_t>(t)];
            const int64_t block = slice->blocks[position / kBlockTokens];
            for (int64_t h = 0; h < config_.n_kv_heads; h++)
                kernels_.store_kv(cache_.layout(),
                                  cache_.base(layer, h) + block * cache_.layout().block_bytes,
                                  position % kBlockTokens, space_.key.row(t) + h * head_dim,
                                  space_.value.row(t) + h * head_dim);
        }
    }

    void keep_outputs(Worker& worker) {
        const auto [begin, end] = worker.share(outputs_.rows());
        for (int64_t i = begin; i < end; i++)
            std::copy_n(all_.residual.row(outputs_.tokens[static_cast<size_t>(i)].row), config_.dim,
                        outputs_.residual.row(i));
    }

    // Attention over what is in the cache now, and the product behind it.
    void look_back(Worker& worker, const Part& part, int64_t index) {
        const Linear& o = layer_at(index).o;
        wait(worker, {&o});
        part.attention.run(worker, kernels_, index, space_.query, space_.attended.values);
        wait(worker, {&o});
        Needs needs;
        needs.add(o);
        const auto [begin, end] = worker.share(part.rows());
        for (int64_t t = begin; t < end; t++) space_.attended.prepare(kernels_, needs, t);
        reduce(space_.attended, {&o}, begin, end);
        wait(worker, {&o});
        multiply(worker, space_.attended, {{&o, &part.delta}}, part.rows());
    }

    // Activation, rotation and rounding of a row while it is in the nearest cache.
    void activate(Worker& worker, const Part& part, const Linear& reader) {
        Needs needs;
        needs.add(reader);
        const int64_t width = round_up(config_.ffn_dim, 16);
        const auto [begin, end] = worker.share(part.rows());
        for (int64_t t = begin; t < end; t++) {
            float* row = space_.gate.values.row(t);
            kernels_.silu_mul(row, space_.up.row(t), width);
            if (config_.has_down_rotation) kernels_.rotate_blocks(row, width, config_.rotation_block());
            space_.gate.prepare(kernels_, needs, t);
        }
        reduce(space_.gate, {&reader}, begin, end);
    }

    void final_norm(Worker& worker, const Part& part) {
        const bool rotates = config_.has_output_rotation;
        QuantizedRows& out = rotates ? space_.unrotated : space_.final_hidden;
        Needs needs;
        needs.add(rotates ? model_.output_rotation : model_.head);
        const auto [begin, end] = worker.share(part.rows());
        for (int64_t i = begin; i < end; i++) {
            kernels_.add_rms_norm(part.residual.row(i), part.delta.row(i), model_.final_norm,
                                  config_.norm_eps, config_.dim, out.values.row(i));
            out.prepare(kernels_, needs, i);
        }
        if (rotates) rotate_output(worker, part.rows());
    }

    void rotate_output(Worker& worker, int64_t rows) {
        worker.barrier();
        multiply(worker, space_.unrotated, {{&model_.output_rotation, &space_.final_hidden.values}}, rows);
        worker.barrier();
        Needs needs;
        needs.add(model_.head);
        const auto [begin, end] = worker.share(rows);
        for (int64_t i = begin; i < end; i++) space_.final_hidden.prepare(kernels_, needs, i);
    }

    const Model& model_;
    const ModelConfig& config_;
    const Cache& cache_;
    Workspace& space_;
    const Batch& batch_;
    const KernelTable& kernels_;
    Part all_, outputs_;
    std::vector<SequenceSlice> output_slices_;
};

Runner::Runner(const Model& model, Cache& cache, std::shared_ptr<ThreadPool> pool,
               std::vector<int32_t> left_out)
    : model_(model),
      cache_(cache),
      pool_(std::move(pool)),
      space_(std::make_unique<Workspace>(model.config, cache, pool_->size())),
      left_out_(std::move(left_out)) {
    for (const int32_t token : left_out_)
        PUNA_CHECK(token >= 0 && token < model.config.vocab_size,
                   "runner: ids that are left out must be under " + std::to_string(model.config.vocab_size) +
                       ", got " + std::to_string(token));
    kernels();  // a bad PUNA_ISA shows here and not in the middle of a step
}

Runner::Runner(const Model& model, Cache& cache, int n_threads, std::vector<int32_t> left_out)
    : Runner(model, cache, std::make_shared<ThreadPool>(n_threads), std::move(left_out)) {}

Runner::Runner(const Model& model, Cache& cache, const Runner& other, std::vector<int32_t> left_out)
    : Runner(model, cache, other.pool_, std::move(left_out)) {}

Runner::~Runner() = default;

void Runner::check(const Batch& batch) const {
    int64_t total = 0;
    for (const SequenceSlice& slice : batch.slices) {
        PUNA_CHECK(slice.n_tokens >= 1 && slice.position >= 0, "batch: a slice needs at least 1 token");
        const int64_t end = slice.position + slice.n_tokens;
        PUNA_CHECK(end <= model_.config.max_seq_len,
                   "batch: position " + std::to_string(end) + " is beyond the model's context of " +
                       std::to_string(model_.config.max_seq_len) + " tokens");
        const int64_t needed = (end + kBlockTokens - 1) / kBlockTokens;
        PUNA_CHECK(slice.n_blocks >= needed, "batch: " + std::to_string(end) + " tokens need " +
                                                 std::to_string(needed) + " cache blocks, got " +
                                                 std::to_string(slice.n_blocks));
        for (int64_t i = 0; i < needed; i++)
            PUNA_CHECK(slice.blocks[i] >= 0 && slice.blocks[i] < cache_.n_blocks(),
                       "batch: there is no cache block " + std::to_string(slice.blocks[i]));
        total += slice.n_tokens;
    }
    PUNA_CHECK(total == static_cast<int64_t>(batch.tokens.size()) && total > 0,
               "batch: the slices have " + std::to_string(total) + " tokens, got " +
                   std::to_string(batch.tokens.size()));
    for (const int32_t token : batch.tokens)
        PUNA_CHECK(token >= 0 && token < model_.config.vocab_size,
                   "batch: token " + std::to_string(token) + " is not in the vocabulary of " +
                       std::to_string(model_.config.vocab_size));
    int64_t before = -1;
    for (const int64_t row : batch.output_rows) {
        PUNA_CHECK(row > before && row < total, "batch: output rows must ascend from 0 to " +
                                                    std::to_string(total - 1) + ", got " +
                                                    std::to_string(row) + " after " + std::to_string(before));
        before = row;
    }
}

template <class After>
void Runner::run(const Batch& batch, bool with_head, int64_t n_jobs, After after) {
    check(batch);
    const auto outputs = static_cast<int64_t>(batch.output_rows.size());
    n_sampled_ = 0;
    space_->reserve(static_cast<int64_t>(batch.tokens.size()), outputs, with_head);
    Forward forward(model_, cache_, *space_, batch);
    pool_->run([&](Worker& worker) {
        forward.run(worker, with_head);
        worker.barrier();
        const auto [begin, end] = worker.share(n_jobs);
        for (int64_t i = begin; i < end; i++) after(i, worker.index());
    });
}

std::vector<std::vector<Sample>> Runner::sample(const Batch& batch, const std::vector<Sampler*>& samplers,
                                                const std::vector<const uint32_t*>& allowed) {
    PUNA_CHECK(samplers.size() == batch.output_rows.size() && allowed.size() == samplers.size(),
               "sample: need a sampler and a mask for each of " + std::to_string(batch.output_rows.size()) +
                   " output rows, got " + std::to_string(samplers.size()) + " and " +
                   std::to_string(allowed.size()));
    std::vector<size_t> first;  // of each sampler's rows
    std::unordered_set<Sampler*> seen;
    for (size_t i = 0; i < samplers.size(); i++) {
        if (i > 0 && samplers[i] == samplers[i - 1]) {
            PUNA_CHECK(batch.output_rows[i] == batch.output_rows[i - 1] + 1,
                       "sample: the rows of one sampler must follow each other");
            continue;
        }
        PUNA_CHECK(seen.insert(samplers[i]).second, "sample: the rows of one sampler must follow each other");
        first.push_back(i);
    }
    const auto n_samplers = static_cast<int64_t>(first.size());
    first.push_back(samplers.size());
    std::vector<std::vector<Sample>> samples(static_cast<size_t>(n_samplers));
    // Room for the scratch of every thread, so that nothing is allocated in a job beyond a sampler's own.
    space_->sampler_scratch.resize(static_cast<size_t>(pool_->size()));
    run(batch, true, n_samplers, [&](int64_t job, int thread) {
        const auto index = static_cast<size_t>(job);
        for (size_t i = first[index]; i < first[index + 1]; i++) {
            float* logits = space_->logits.row(static_cast<int64_t>(i));
            for (const int32_t token : left_out_) logits[token] = -std::numeric_limits<float>::infinity();
            samples[index].push_back(samplers[i]->pick(logits, model_.config.vocab_size,
                                                       space_->sampler_scratch[static_cast<size_t>(thread)],
                                                       allowed[i]));
            if (i + 1 == first[index + 1]) break;
            const int32_t guess = batch.tokens[static_cast<size_t>(batch.output_rows[i + 1])];
            if (samples[index].back().token != guess) break;
        }
    });
    n_sampled_ = static_cast<int64_t>(samplers.size());
    return samples;
}

Sample Runner::pick_again(int64_t output, Sampler& sampler, const uint32_t* allowed) {
    PUNA_CHECK(output >= 0 && output < n_sampled_,
               "pick_again: there is no output row " + std::to_string(output) + " of the " +
                   std::to_string(n_sampled_) + " that were sampled last");
    PUNA_CHECK(sampler.takes_likeliest(),
               "pick_again: the sampler draws, or has bias or penalties; `sample` needs its mask");
    return sampler.pick(space_->logits.row(output), model_.config.vocab_size, space_->sampler_scratch[0],
                        allowed);
}

void Runner::logits(const Batch& batch, float* out) {
    const auto width = static_cast<size_t>(model_.config.vocab_size);
    run(batch, true, static_cast<int64_t>(batch.output_rows.size()), [&](int64_t i, int) {
        std::memcpy(out + static_cast<size_t>(i) * width, space_->logits.row(i), width * sizeof(float));
    });
}

void Runner::hidden(const Batch& batch, float* out) {
    const auto width = static_cast<size_t>(model_.config.dim);
    run(batch, false, static_cast<int64_t>(batch.output_rows.size()), [&](int64_t i, int) {
        std::memcpy(out + static_cast<size_t>(i) * width, space_->final_hidden.values.row(i),
                    width * sizeof(float));
    });
}

}  // namespace puna
