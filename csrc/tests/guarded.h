// A buffer between guard bytes, at an address that is aligned for its elements and for nothing more.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

namespace puna::test {

template <class T>
class Guarded {
  public:
    // `n` elements, all bits zero, `shift` elements behind a 64-byte boundary.
    explicit Guarded(int64_t n, int64_t shift = 1)
        : n_(static_cast<size_t>(n)), memory_(new uint8_t[n_ * sizeof(T) + kSlack]) {
        std::memset(memory_.get(), kGuard, n_ * sizeof(T) + kSlack);
        const auto address = reinterpret_cast<uintptr_t>(memory_.get()) + kGuardBytes;
        first_ =
            (address + 63) / 64 * 64 - address + kGuardBytes + static_cast<size_t>(shift % 16) * sizeof(T);
        std::memset(memory_.get() + first_, 0, n_ * sizeof(T));
    }
    T* data() { return reinterpret_cast<T*>(memory_.get() + first_); }
    const T* data() const { return reinterpret_cast<const T*>(memory_.get() + first_); }
    size_t size() const { return n_; }
    T& operator[](int64_t i) { return data()[i]; }
    T* begin() { return data(); }
    T* end() { return data() + n_; }

    // Whether nothing was written before or behind the elements.
    bool is_intact() const {
        const auto is_guard = [](uint8_t byte) { return byte == kGuard; };
        const uint8_t* bytes = memory_.get();
        return std::all_of(bytes, bytes + first_, is_guard) &&
               std::all_of(bytes + first_ + n_ * sizeof(T), bytes + n_ * sizeof(T) + kSlack, is_guard);
    }

  private:
    static constexpr uint8_t kGuard = 0xa5;
    static constexpr size_t kGuardBytes = 128, kSlack = 2 * kGuardBytes + 64 + 16 * sizeof(T);
    size_t n_, first_ = 0;
    std::unique_ptr<uint8_t[]> memory_;
};

}  // namespace puna::test
