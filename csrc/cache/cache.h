// The paged key-value cache: memory only. Which sequence owns which block is the scheduler's business.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>

#include "kernels/table.h"
#include "model/model.h"

namespace puna {

// "f32", "f16" or "int8"; Error for another name.
CacheType cache_type_from_name(const std::string& name);

// How a block of one layer and key head lies in memory.
KvLayout kv_layout(CacheType type, int64_t head_dim);

class Cache {
  public:
    // Room for n_blocks x kBlockTokens positions. Pages are touched, and so cost memory, only when written.
    Cache(const ModelConfig& config, int64_t n_blocks, CacheType type);

    int64_t n_blocks() const { return n_blocks_; }
    // Bytes of one block over all layers and heads.
    int64_t bytes_per_block() const { return bytes_per_block_; }
    const KvLayout& layout() const { return layout_; }

    // The blocks of one layer and key head; block b lies at + b * layout().block_bytes.
    uint8_t* base(int64_t layer, int64_t kv_head) const {
        return first_ + (layer * n_kv_heads_ + kv_head) * per_head_bytes_;
    }

  private:
    struct Free {
        void operator()(uint8_t* p) const { std::free(p); }
    };
    KvLayout layout_;
    int64_t n_blocks_, n_kv_heads_, per_head_bytes_, bytes_per_block_;
    std::unique_ptr<uint8_t, Free> memory_;
    uint8_t* first_;  // block, at the start of a line
};

}  // namespace puna
