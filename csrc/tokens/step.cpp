#include "tokens/step.h"

#include "tokens/matcher.h"

namespace puna {

bool change(const Step& step, Piece piece, int64_t& steps, std::string& changed) {
    if (piece.text.empty()) return false;
    if (step.kind == Step::Kind::prepend) {
        if (step.when == Step::When::never || (step.when == Step::When::first && !piece.is_first))
            return false;
        if (step.when != Step::When::always && piece.text.starts_with(step.text)) return false;
        changed.append(step.text).append(piece.text);
        return true;
    }
    if (step.kind == Step::Kind::call) {
        changed = step.function(piece.text);
        return true;
    }
    Matcher matcher(step.pattern, piece.text, steps);
    size_t done = 0;
    for (Span match{}; matcher.next(match); done = match.end)
        changed.append(piece.text, done, match.begin - done).append(step.text);
    if (done == 0 && changed.empty()) return false;
    changed.append(piece.text, done);
    return true;
}

void split(const Step& step, Piece piece, int64_t& steps, const std::function<void(Piece)>& put) {
    using Behavior = Step::Behavior;
    const auto emit = [&](Span span) {
        put({piece.text.substr(span.begin, span.end - span.begin), piece.is_first && span.begin == 0});
    };
    Span held{0, 0};  // what may grow yet
    bool has_held = false, was_match = false;
    const auto take = [&](Span span, bool is_match) {
        is_match ^= step.is_inverted;
        if (step.behavior == Behavior::isolated || step.behavior == Behavior::removed) {
            if (!is_match || step.behavior == Behavior::isolated) emit(span);
            return;
        }
        const bool grows = step.behavior == Behavior::contiguous             ? is_match == was_match
                           : step.behavior == Behavior::merged_with_previous ? is_match && !was_match
                                                                             : !is_match && was_match;
        if (has_held && grows) {
            held.end = span.end;
        } else {
            if (has_held) emit(held);
            held = span;
        }
        has_held = true;
        was_match = is_match;
    };
    Matcher matcher(step.pattern, piece.text, steps);
    size_t done = 0;
    for (Span match{}; matcher.next(match); done = match.end) {
        if (match.begin > done) take({done, match.begin}, false);
        take(match, true);
    }
    if (done < piece.text.size()) take({done, piece.text.size()}, false);
    if (has_held) emit(held);
}

}  // namespace puna
