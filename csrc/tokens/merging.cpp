#include "tokens/merging.h"

#include <algorithm>
#include <functional>

namespace puna {

void Merging::consider(const TokenTable& table, int32_t left) {
    const Symbol& symbol = symbols_[static_cast<size_t>(left)];
    if (symbol.next < 0) return;
    const uint32_t rank = table.rank(symbol.token, symbols_[static_cast<size_t>(symbol.next)].token);
    if (rank == kMaxMerges) return;
    heap_.push_back(static_cast<uint64_t>(rank) << 32 | static_cast<uint32_t>(left));
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
}

void Merging::finish(const TokenTable& table, std::vector<int32_t>& out) {
    const auto n = static_cast<int32_t>(symbols_.size());
    for (int32_t i = 0; i < n; i++) {
        symbols_[static_cast<size_t>(i)].previous = i - 1;
        symbols_[static_cast<size_t>(i)].next = i + 1 < n ? i + 1 : -1;
    }
    heap_.clear();
    for (int32_t i = 0; i < n; i++) consider(table, i);
    while (!heap_.empty()) {
        std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
        const auto place = static_cast<int32_t>(heap_.back() & 0xffffffff);
        const Merge& merge = table.merge(static_cast<uint32_t>(heap_.back() >> 32));
        heap_.pop_back();
        Symbol& left = symbols_[static_cast<size_t>(place)];
        if (left.token != merge.left || left.next < 0) continue;  // joined meanwhile
        const int32_t next = left.next;
        Symbol& right = symbols_[static_cast<size_t>(next)];
        if (right.token != merge.right) continue;
        left.token = merge.result;
        left.next = right.next;
        right.token = kNoToken;
        if (left.next >= 0) symbols_[static_cast<size_t>(left.next)].previous = place;
        consider(table, place);
        if (left.previous >= 0) consider(table, left.previous);
    }
    for (int32_t i = n > 0 ? 0 : -1; i >= 0; i = symbols_[static_cast<size_t>(i)].next)
        out.push_back(symbols_[static_cast<size_t>(i)].token);
}

}  // namespace puna
