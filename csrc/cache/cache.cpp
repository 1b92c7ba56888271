#include "cache/cache.h"

#include "base/check.h"

namespace puna {

namespace {

constexpr int64_t kLine = 64;  // of the processor's caches; a vector that straddles two costs twice

}  // namespace

CacheType cache_type_from_name(const std::string& name) {
    if (name == "f32") return CacheType::f32;
    if (name == "f16") return CacheType::f16;
    if (name == "int8") return CacheType::int8;
    throw Error("cache type '" + name + "' is unknown; known: f32, f16, int8");
}

KvLayout kv_layout(CacheType type, int64_t head_dim) {
    const bool has_scales = type == CacheType::int8;
    const int64_t size = type == CacheType::f32 ? 4 : type == CacheType::f16 ? 2 : 1;
    const int64_t scale_bytes = has_scales ? kBlockTokens * static_cast<int64_t>(sizeof(float)) : 0;
    KvLayout layout;
    layout.type = type;
    layout.head_dim = head_dim;
    layout.padded_head_dim = round_up(head_dim, 16);
    layout.key_scale_offset = round_up(head_dim * kBlockTokens * size, kLine);
    layout.value_offset = layout.key_scale_offset + (head_dim + kKeyGroup - 1) / kKeyGroup * scale_bytes;
    layout.value_scale_offset = layout.value_offset + layout.padded_head_dim * kBlockTokens * size;
    layout.block_bytes = layout.value_scale_offset + scale_bytes;
    return layout;
}

Cache::Cache(const ModelConfig& config, int64_t n_blocks, CacheType type)
    : layout_(kv_layout(type, config.head_dim)), n_blocks_(n_blocks), n_kv_heads_(config.n_kv_heads) {
    PUNA_CHECK(n_blocks >= 1, "cache: need at least 1 block, got " + std::to_string(n_blocks));
    PUNA_CHECK(n_blocks <= INT32_MAX, "cache: at most 2^31 - 1 blocks, got " + std::to_string(n_blocks));
    per_head_bytes_ = checked_mul(n_blocks, layout_.block_bytes);
    bytes_per_block_ = checked_mul(layout_.block_bytes, checked_mul(config.n_layers, config.n_kv_heads));
    const int64_t total = checked_mul(n_blocks, bytes_per_block_);
    // Zeroed by the system when first touched; calloc of this size takes fresh pages. A block's unwritten
    // positions are read as keys (and masked), so they must not hold garbage that traps a sanitizer.
    memory_.reset(static_cast<uint8_t*>(std::calloc(static_cast<size_t>(total) + kLine - 1, 1)));
    PUNA_CHECK(memory_ != nullptr, "cache: no memory for " + std::to_string(total) + " bytes (" +
                                       std::to_string(n_blocks * kBlockTokens) +
                                       " tokens); ask for a smaller context");
    const auto address = reinterpret_cast<uintptr_t>(memory_.get());
    first_ = memory_.get() + (kLine - address % kLine) % kLine;
}

}  // namespace puna
