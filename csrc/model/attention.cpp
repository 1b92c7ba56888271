#include "model/attention.h"

#include <algorithm>
#include <cmath>

namespace puna {

namespace {

// What reading a position costs, in products of a query with one.
constexpr int64_t kReadCost = 8;

AttentionState state_at(float* memory, int64_t queries) {
    return {memory, memory + queries, memory + 2 * queries};
}

}  // namespace

Attention::Attention(const ModelConfig& config, const Cache& cache, int n_threads)
    : config_(config), cache_(cache), group_(config.n_heads / config.n_kv_heads) {
    const int64_t queries = kBlockTokens * group_;
    const auto floats = static_cast<size_t>(queries * config.head_dim + 2 * state_floats(queries));
    thread_memory_.assign(static_cast<size_t>(n_threads), std::vector<float>(floats));
}

void Attention::plan(const std::vector<SequenceSlice>& slices) {
    tiles_.clear();
    int64_t row = 0;
    for (const SequenceSlice& slice : slices) {
        const int64_t end = slice.position + slice.n_tokens;
        for (int64_t h = 0; h < config_.n_kv_heads; h++)
            for (int64_t p = slice.position; p < end;) {
                const int64_t next = std::min(end, (p / kBlockTokens + 1) * kBlockTokens);
                tiles_.push_back(
                    {&slice, row + p - slice.position, next - p, p, h, (next - 1) / kChunkTokens + 1});
                p = next;
            }
        row += slice.n_tokens;
    }
    deal_out();
}

int64_t Attention::cost_of_chunk(const Tile& tile) const { return kReadCost + tile.tokens * group_; }

void Attention::deal_out() {
    const auto n_threads = static_cast<int64_t>(thread_memory_.size());
    int64_t total = 0, done = 0;
    for (const Tile& tile : tiles_) total += tile.chunks * cost_of_chunk(tile);
    cuts_.assign(1, {0, 0});
    splits_.clear();
    int64_t floats = 0;
    for (size_t i = 0; i < tiles_.size(); i++) {
        const Tile& tile = tiles_[i];
        const int64_t each = cost_of_chunk(tile);
        while (static_cast<int64_t>(cuts_.size()) < n_threads) {
            const int64_t chunk = (total * static_cast<int64_t>(cuts_.size()) / n_threads - done) / each;
            if (chunk >= tile.chunks) break;
            cuts_.push_back({i, chunk});
            if (chunk == 0 || (!splits_.empty() && splits_.back().tile == i)) continue;
            splits_.push_back({i, chunk, floats});
            floats += (1 + tile.chunks - chunk) * state_floats(tile.tokens * group_);
        }
        done += tile.chunks * each;
    }
    cuts_.push_back({tiles_.size(), 0});
    if (split_memory_.size() < static_cast<size_t>(floats)) split_memory_.resize(static_cast<size_t>(floats));
}

// One layer, as one thread computes it.
class Attention::Step {
  public:
    Step(Attention& plan, const KernelTable& kernels, int64_t layer, const Rows& query, Rows& out,
         float* memory)
        : plan_(plan), kernels_(kernels), layer_(layer), query_(query), out_(out), memory_(memory) {}

    void compute(Place begin, Place end) {
        for (size_t i = begin.tile; i < plan_.tiles_.size() && i <= end.tile; i++) {
            const int64_t first = i == begin.tile ? begin.chunk : 0;
            const int64_t last = i == end.tile ? end.chunk : plan_.tiles_[i].chunks;
            if (first < last) compute_tile(i, first, last);
        }
    }

    // What is left of a tile of several threads.
    void finish(const Split& split) {
        const Tile& tile = plan_.tiles_[split.tile];
        for (int64_t c = split.chunk; c < tile.chunks; c++)
            add(tile, split_state(split, c), split_sum(split));
        write(tile, split_sum(split));
    }

  private:
    void compute_tile(size_t index, int64_t first, int64_t last) {
        const Tile& tile = plan_.tiles_[index];
        const bool is_whole = first == 0 && last == tile.chunks;
        const Split* split = is_whole ? nullptr : &split_of(index);
        const int64_t n = queries(tile);
        float* memory = gather(tile);
        const AttentionState sum = is_whole ? state_at(memory, n) : split_sum(*split);
        const AttentionState next = state_at(memory + plan_.state_floats(n), n);
        for (int64_t c = first; c < last; c++) {
            const AttentionState out = first > 0 ? split_state(*split, c) : c == 0 ? sum : next;
            attend(index, c, out);
            if (first == 0 && c > 0) add(tile, next, sum);
        }
        if (is_whole) write(tile, sum);
    }

    // The tile's queries, side by side at the beginning of this thread's memory; what lies behind them.
    float* gather(const Tile& tile) {
        const int64_t width = plan_.group_ * plan_.config_.head_dim;
        for (int64_t t = 0; t < tile.tokens; t++)
            std::copy_n(query_.row(tile.row + t) + tile.kv_head * width, width, memory_ + t * width);
        return memory_ + tile.tokens * width;
    }

    void attend(size_t index, int64_t chunk, const AttentionState& out) {
        const Tile& tile = plan_.tiles_[index];
        AttentionChunk a{};
        a.kv = plan_.cache_.layout();
        a.base = plan_.cache_.base(layer_, tile.kv_head);
        a.block_ids = tile.slice->blocks + chunk * kChunkBlocks;
        const bool is_last = chunk + 1 == tile.chunks;
        if (!is_last || index + 1 < plan_.tiles_.size()) {
            const Tile& next = is_last ? plan_.tiles_[index + 1] : tile;
            const int64_t first = is_last ? 0 : (chunk + 1) * kChunkBlocks;
            const int64_t blocks = (next.position + next.tokens - 1) / kBlockTokens + 1;
            a.next_base = plan_.cache_.base(layer_, next.kv_head);
            a.next_ids = next.slice->blocks + first;
            a.next_blocks = std::min(blocks - first, kChunkBlocks);
        }
        a.query = memory_;
        a.tokens = tile.tokens;
        a.heads = plan_.group_;
        a.reach = tile.position + 1 - chunk * kChunkTokens;
        a.scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(plan_.config_.head_dim)));
        kernels_.attend(a, out);
    }

    void add(const Tile& tile, const AttentionState& part, const AttentionState& sum) {
        kernels_.merge_attention(queries(tile), plan_.cache_.layout().padded_head_dim, part, sum);
    }

    void write(const Tile& tile, const AttentionState& sum) {
        const int64_t head_dim = plan_.config_.head_dim, padded = plan_.cache_.layout().padded_head_dim;
        for (int64_t q = 0; q < queries(tile); q++) {
            const int64_t head = tile.kv_head * plan_.group_ + q % plan_.group_;
            float* out = out_.row(tile.row + q / plan_.group_) + head * head_dim;
            for (int64_t d = 0; d < head_dim; d++) out[d] = sum.output[q * padded + d] / sum.sum[q];
        }
    }

    int64_t queries(const Tile& tile) const { return tile.tokens * plan_.group_; }
    const Split& split_of(size_t tile) const {
        return *std::find_if(plan_.splits_.begin(), plan_.splits_.end(),
                             [&](const Split& split) { return split.tile == tile; });
    }
    AttentionState split_sum(const Split& split) const { return split_state(split, split.chunk - 1); }
    AttentionState split_state(const Split& split, int64_t chunk) const {
        const int64_t n = queries(plan_.tiles_[split.tile]), index = chunk - split.chunk + 1;
        return state_at(plan_.split_memory_.data() + split.memory + index * plan_.state_floats(n), n);
    }

    Attention& plan_;
    const KernelTable& kernels_;
    const int64_t layer_;
    const Rows& query_;
    Rows& out_;
    float* const memory_;
};

void Attention::run(Worker& worker, const KernelTable& kernels, int64_t layer, const Rows& query, Rows& out) {
    const auto thread = static_cast<size_t>(worker.index());
    Step step(*this, kernels, layer, query, out, thread_memory_[thread].data());
    step.compute(cuts_[thread], cuts_[thread + 1]);
    if (splits_.empty()) return;
    worker.barrier();
    const auto [begin, end] = worker.share(static_cast<int64_t>(splits_.size()));
    for (int64_t i = begin; i < end; i++) step.finish(splits_[static_cast<size_t>(i)]);
}

}  // namespace puna
