// Attention of a step on all threads.
//
// The queries of a step are cut into tiles: tokens of one sequence that stand in the same block of positions,
// with the heads that share a key head. A tile's work is its chunks of kChunkTokens positions, each read from
// the cache once for all queries of the tile. All chunks of all tiles in one line are dealt out to the
// threads in runs of the same cost. A thread sums a tile's chunks up in order; where a tile is cut, the
// chunks behind the cut are kept apart and added afterwards in the same order, so a cut changes no bit.
#pragma once

#include <cstdint>
#include <vector>

#include "cache/cache.h"
#include "kernels/table.h"
#include "model/batch.h"
#include "model/model.h"
#include "model/rows.h"
#include "threads/pool.h"

namespace puna {

class Attention {
  public:
    Attention(const ModelConfig& config, const Cache& cache, int n_threads);

    // Deals out the work of a step; `slices` must outlive its layers.
    void plan(const std::vector<SequenceSlice>& slices);

    // One layer, called by every thread: query [tokens][n_heads][head_dim] to `out`, the same shape. Only
    // what the thread wrote itself is visible without a barrier.
    void run(Worker& worker, const KernelTable& kernels, int64_t layer, const Rows& query, Rows& out);

  private:
    struct Tile {
        const SequenceSlice* slice;
        int64_t row, tokens;  // its first row in the batch
        int64_t position;     // of the first token
        int64_t kv_head, chunks;
    };
    // A chunk of a tile.
    struct Place {
        size_t tile;
        int64_t chunk;
    };
    // A tile of several threads: the sum up to `chunk`, then every chunk from there on, each of `queries`.
    struct Split {
        size_t tile;
        int64_t chunk;
        int64_t memory;  // where its states begin in split_memory_
    };
    class Step;

    void deal_out();
    int64_t cost_of_chunk(const Tile& tile) const;
    int64_t state_floats(int64_t queries) const { return queries * (cache_.layout().padded_head_dim + 2); }

    const ModelConfig& config_;
    const Cache& cache_;
    const int64_t group_;
    std::vector<Tile> tiles_;
    std::vector<Place> cuts_;  // thread i has the chunks from cuts_[i] to cuts_[i + 1]
    std::vector<Split> splits_;
    std::vector<float> split_memory_;
    std::vector<std::vector<float>> thread_memory_;  // queries of a tile, its sum, the chunk to be added
};

}  // namespace puna
