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

// A growing array, zero at first. Fresh memory of the system: what is never written costs nothing.
template <class T>
class LazyArray {
  public:
    // Room for n; what was in it is lost when it grows.
    void reserve(size_t n) {
        if (n <= size_) return;
        memory_.reset();
        memory_.reset(static_cast<T*>(std::calloc(n, sizeof(T))));
        size_ = memory_ == nullptr ? 0 : n;
        if (memory_ == nullptr) throw std::bad_alloc();
    }
    T* data() const { return memory_.get(); }

  private:
    struct Free {
        void operator()(T* p) const { std::free(p); }
    };
    size_t size_ = 0;
    std::unique_ptr<T, Free> memory_;
};

// Which forms of a row the matrices that read it want, besides floats.
struct Needs {
    bool int8 = false, wide = false, bf16 = false;

    void add(const Weight& reader) {
        int8 = int8 || is_integer(reader.format);
        wide = wide || reader.format == Format::int8_channel || reader.format == Format::int8_group32;
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
        q_.reserve(count * static_cast<size_t>(q_stride_));
        wide_.reserve(count * static_cast<size_t>(q_stride_));
        half_.reserve(count * static_cast<size_t>(q_stride_));
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
        if (needs.wide && kernels.widen_row != nullptr)
            kernels.widen_row(q_.data() + i * q_stride_, width, wide_.data() + i * q_stride_);
    }
    Activations view(int64_t begin, int64_t end) const {
        const int64_t groups = values.stride() / kGroup;
        return {values.row(begin),
                q_.data() + begin * q_stride_,
                wide_.data() + begin * q_stride_,
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
    LazyArray<int8_t> q_;
    LazyArray<int16_t> wide_;
    LazyArray<uint16_t> half_;
    std::vector<float> scale_;
    std::vector<int32_t> zero_, group_sum_;
};

}  // namespace puna
