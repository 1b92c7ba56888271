#include "tokens/matcher.h"

#include "tokens/error.h"
#include "tokens/utf8.h"

namespace puna {

namespace {

[[noreturn]] void out_of_steps() {
    throw TokenizerError(
        "the vocabulary's pattern takes too many steps on this text; the file is damaged or hostile");
}

}  // namespace

Matcher::Matcher(const Pattern& pattern, std::string_view text, int64_t& steps)
    : pattern_(pattern), begin_(text.data()), end_(begin_ + text.size()), from_(begin_), steps_(steps) {}

bool Matcher::next(Span& match) {
    for (; from_ <= end_; from_ += from_ < end_ ? character_at(from_, end_).bytes : 1) {
        const char* end = from_;
        if (is_spared(pattern_.start_, from_) || !run(0, from_, end)) {
            if (--steps_ < 0) out_of_steps();
            continue;
        }
        if (end == from_ && last_end_ == end) continue;
        match = {static_cast<size_t>(from_ - begin_), static_cast<size_t>(end - begin_)};
        from_ = last_end_ = end;
        return true;
    }
    return false;
}

bool Matcher::is_spared(uint32_t beginnings, const char* at) const {
    if (beginnings == Pattern::kAny) return false;
    return at == end_ || !pattern_.beginnings_[beginnings][static_cast<unsigned char>(*at)];
}

const char* Matcher::take_set(const CharSet& set, const char* at, int32_t most, int32_t& taken) const {
    for (; taken < most && at < end_; taken++) {
        const Character c = character_at(at, end_);
        if (!set.has(c.code)) break;
        at += c.bytes;
    }
    return at;
}

// Runs from an op to the next `end`, trying again from the frames that it pushed itself.
bool Matcher::run(int32_t op_index, const char* at, const char*& end) {
    using Op = Pattern::Op;
    const size_t bottom = frames_.size();
    for (;;) {
        bool is_alive = true;
        while (is_alive) {
            if (--steps_ < 0) out_of_steps();
            const Op& op = pattern_.ops_[static_cast<size_t>(op_index++)];
            switch (op.kind) {
                case Op::Kind::character:
                case Op::Kind::set: {
                    is_alive = at < end_;
                    if (!is_alive) break;
                    const Character c = character_at(at, end_);
                    is_alive =
                        op.kind == Op::Kind::set ? pattern_.sets_[op.set].has(c.code) : c.code == op.code;
                    at += c.bytes;
                    break;
                }
                case Op::Kind::repeat_set: {
                    const CharSet& set = pattern_.sets_[op.set];
                    int32_t taken = 0;
                    const char* const floor = take_set(set, at, op.least, taken);
                    is_alive = taken == op.least;
                    if (!is_alive) break;
                    at = take_set(set, floor, op.most, taken);
                    steps_ -= taken;
                    if (at > floor) frames_.push_back({op_index, at, floor});
                    break;
                }
                case Op::Kind::attempt:
                    if (is_spared(op.beginnings, at)) {
                        op_index = op.otherwise;
                        break;
                    }
                    frames_.push_back({op.otherwise, at, at});
                    op_index = op.to;
                    break;
                case Op::Kind::jump:
                    op_index = op.to;
                    break;
                case Op::Kind::atomic:
                case Op::Kind::ahead:
                case Op::Kind::not_ahead: {
                    const char* sub_end = at;
                    const bool found = run(op_index, at, sub_end);
                    is_alive = found != (op.kind == Op::Kind::not_ahead);
                    if (op.kind == Op::Kind::atomic) at = sub_end;
                    op_index = op.to;
                    break;
                }
                case Op::Kind::line_start:
                    is_alive = at == begin_ || (at[-1] == '\n' && at < end_);
                    break;
                case Op::Kind::line_end:
                    is_alive = at == end_ || *at == '\n';
                    break;
                case Op::Kind::end:
                    frames_.resize(bottom);
                    end = at;
                    return true;
            }
        }
        if (frames_.size() == bottom) return false;
        Frame& frame = frames_.back();
        if (frame.at > frame.floor) {  // a repeat of a set gives one character back
            do frame.at--;
            while (frame.at > frame.floor && is_continuation(*frame.at));
            op_index = frame.op;
            at = frame.at;
            if (frame.at == frame.floor) frames_.pop_back();
        } else {
            op_index = frame.op;
            at = frame.at;
            frames_.pop_back();
        }
    }
}

}  // namespace puna
