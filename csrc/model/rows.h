// A growing buffer of rows of activations, padded as the kernels need them.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "base/check.h"
#include "kernels/table.h"
#include "model/model.h"

namespace puna {

// Floats [rows][stride], 64-byte aligned, zero where never written.
class Rows {
  public:
    explicit Rows(int64_t width) : stride_(round_up(width, kColumnBlock)) {}

    // Room for n rows; what was in them is lost when the buffer grows.
    void reserve(int64_t n) {
        if (n <= capacity_) return;
        const auto bytes = static_cast<size_t>(checked_mul(checked_mul(n, stride_), sizeof(float)));
        auto* p = static_cast<float*>(std::aligned_alloc(64, bytes));
        if (p == nullptr) throw std::bad_alloc();
        std::memset(p, 0, bytes);
        memory_.reset(p);
        capacity_ = n;
    }
    int64_t stride() const { return stride_; }
    float* row(int64_t i) const { return memory_.get() + i * stride_; }

  private:
    struct Free {
        void operator()(float* p) const { std::free(p); }
    };
    int64_t stride_, capacity_ = 0;
    std::unique_ptr<float, Free> memory_;
};

// Which forms of a row the matrices that read it want, besides floats.
struct Needs {
    bool int8 = false, bf16 = false;

    void add(const Weight& reader) {
        int8 = int8 || is_integer(reader.format);
        bf16 = bf16 || reader.format == Format::bf16;
    }
    void add(const Linear& reader) {
        add(reader.weight);
        if (reader.has_adaptor()) add(reader.a);
    }
};

// Rows with their int8 and bfloat16 forms, made on demand.
class QuantizedRows {
  public:
    explicit QuantizedRows(int64_t width) : values(width), q_stride_(values.stride() + kSkew) {}

    void reserve(int64_t n) {
        values.reserve(n);
        const auto count = static_cast<size_t>(n), width = static_cast<size_t>(values.stride());
        if (scale_.size() >= count) return;
        q_.resize(count * static_cast<size_t>(q_stride_));
        half_.resize(count * static_cast<size_t>(q_stride_));
        scale_.resize(count);
        zero_.resize(count);
        group_sum_.resize(count * width / kGroup);
    }
    void prepare(const KernelTable& kernels, Needs needs, int64_t i) {
        const int64_t width = values.stride();
        const auto row = static_cast<size_t>(i);
        if (needs.bf16) kernels.round_row(values.row(i), width, half_.data() + i * q_stride_);
        if (needs.int8)
            kernels.quantize_row(values.row(i), width, q_.data() + i * q_stride_, &scale_[row], &zero_[row],
                                 group_sum_.data() + i * (width / kGroup));
    }
    Activations view(int64_t begin, int64_t end) const {
        const int64_t groups = values.stride() / kGroup;
        return {values.row(begin),
                q_.data() + begin * q_stride_,
                scale_.data() + begin,
                zero_.data() + begin,
                group_sum_.data() + begin * groups,
                half_.data() + begin * q_stride_,
                values.stride(),
                q_stride_,
                end - begin};
    }
    Activations view(int64_t rows) const { return view(0, rows); }

    Rows values;

  private:
    // Rows a power of two apart would fall on the same few lines of the cache.
    static constexpr int64_t kSkew = 64;
    int64_t q_stride_;
    std::vector<int8_t> q_;
    std::vector<uint16_t> half_;
    std::vector<float> scale_;
    std::vector<int32_t> zero_, group_sum_;
};

}  // namespace puna
