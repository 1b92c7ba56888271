// Byte-pair merging of one piece.
#pragma once

#include <cstdint>
#include <vector>

#include "tokens/table.h"

namespace puna {

class Merging {
  public:
    void clear() { symbols_.clear(); }
    void add(int32_t token) { symbols_.push_back({token, 0, 0}); }
    // Joins the neighbours of lowest rank, the leftmost first, until none merge; appends what is left.
    void finish(const TokenTable& table, std::vector<int32_t>& out);

  private:
    struct Symbol {
        int32_t token, previous, next;  // -1 at the ends
    };
    void consider(const TokenTable& table, int32_t left);

    std::vector<Symbol> symbols_;
    std::vector<uint64_t> heap_;  // rank and place of pairs that may join, the lowest on top
};

}  // namespace puna
