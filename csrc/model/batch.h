// What one step computes: new tokens of several sequences, each with its own place and its own cache blocks.
#pragma once

#include <cstdint>
#include <vector>

namespace puna {

struct SequenceSlice {
    int64_t n_tokens;       // new tokens in this step
    int64_t position;       // of the first of them, the length of what is cached
    const int32_t* blocks;  // cache blocks from position 0 on
    int64_t n_blocks;
};

struct Batch {
    std::vector<int32_t> tokens;  // of all slices, one after the other
    std::vector<SequenceSlice> slices;
    std::vector<int64_t> output_rows;  // indices into `tokens` whose result is wanted
};

}  // namespace puna
