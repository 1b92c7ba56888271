#include "tokens/pattern.h"

#include <string>

#include "tokens/error.h"
#include "tokens/utf8.h"

namespace puna {

namespace {

using Kind = Node::Kind;
using Greed = Node::Greed;

constexpr size_t kMaxOps = 20'000;

}  // namespace

Pattern::Pattern(std::string_view pattern) : Pattern(parse_pattern(pattern)) {}

Pattern Pattern::literal(std::string_view text) {
    Node all;
    for (const char *p = text.data(), *end = p + text.size(); p < end;) {
        const Character c = character_at(p, end);
        Node node;
        node.kind = Kind::character;
        node.code = c.code;
        all.parts.push_back(std::move(node));
        p += c.bytes;
    }
    return Pattern(all);
}

Pattern::Pattern(const Node& tree) {
    start_ = beginnings_of(tree);
    compile(tree);
    emit(Op::Kind::end);
}

int32_t Pattern::emit(Op::Kind kind) {
    PUNA_TOKENS_CHECK(ops_.size() < kMaxOps, "a pattern is too large: its repeats are counted too high");
    Op op;
    op.kind = kind;
    ops_.push_back(op);
    return static_cast<int32_t>(ops_.size()) - 1;
}

uint32_t Pattern::keep(const Node& node) {
    CharSet set = node.set;
    if (node.kind == Kind::character) set.add(node.code, node.code);
    sets_.push_back(std::move(set));
    return static_cast<uint32_t>(sets_.size()) - 1;
}

void Pattern::compile(const Node& node) {
    switch (node.kind) {
        case Kind::sequence:
            for (const Node& part : node.parts) compile(part);
            break;
        case Kind::choice:
            compile_choice(node);
            break;
        case Kind::repeat:
            compile_repeat(node);
            break;
        case Kind::character:
            ops_[static_cast<size_t>(emit(Op::Kind::character))].code = node.code;
            break;
        case Kind::set:
            ops_[static_cast<size_t>(emit(Op::Kind::set))].set = keep(node);
            break;
        case Kind::atomic:
            compile_sub(node.parts[0], Op::Kind::atomic);
            break;
        case Kind::ahead:
            compile_sub(node.parts[0], node.is_negative ? Op::Kind::not_ahead : Op::Kind::ahead);
            break;
        case Kind::line_start:
            emit(Op::Kind::line_start);
            break;
        case Kind::line_end:
            emit(Op::Kind::line_end);
            break;
    }
}

void Pattern::compile_choice(const Node& node) {
    std::vector<int32_t> exits;
    for (size_t i = 0; i < node.parts.size(); i++) {
        const bool is_last = i + 1 == node.parts.size();
        const int32_t attempt = is_last ? -1 : emit(Op::Kind::attempt);
        compile(node.parts[i]);
        if (is_last) continue;
        exits.push_back(emit(Op::Kind::jump));
        Op& op = ops_[static_cast<size_t>(attempt)];
        op.to = attempt + 1;
        op.otherwise = static_cast<int32_t>(ops_.size());
        op.beginnings = beginnings_of(node.parts[i]);
    }
    for (const int32_t exit : exits) ops_[static_cast<size_t>(exit)].to = static_cast<int32_t>(ops_.size());
}

void Pattern::compile_repeat(const Node& node) {
    const Node& part = node.parts[0];
    if (node.greed == Greed::possessive) {
        Node greedy = node;
        greedy.greed = Greed::greedy;
        compile_sub(greedy, Op::Kind::atomic);
        return;
    }
    const bool is_one = part.kind == Kind::set || part.kind == Kind::character;
    if (is_one && node.greed == Greed::greedy) {
        const uint32_t set = keep(part);
        Op& op = ops_[static_cast<size_t>(emit(Op::Kind::repeat_set))];
        op.set = set;
        op.least = node.least;
        op.most = node.most;
        return;
    }
    PUNA_TOKENS_CHECK(!first_of(part).may_be_empty,
                      "a pattern repeats what may be empty, which is not supported");
    for (int32_t i = 0; i < node.least; i++) compile(part);
    std::vector<int32_t> attempts;
    const bool is_endless = node.most == kNoLimit;
    for (int32_t i = node.least; i < (is_endless ? node.least + 1 : node.most); i++) {
        attempts.push_back(emit(Op::Kind::attempt));
        compile(part);
    }
    if (is_endless) ops_[static_cast<size_t>(emit(Op::Kind::jump))].to = attempts[0];
    const auto behind = static_cast<int32_t>(ops_.size());
    const uint32_t beginnings = node.greed == Greed::lazy ? kAny : beginnings_of(part);
    for (const int32_t attempt : attempts) {
        Op& op = ops_[static_cast<size_t>(attempt)];
        op.to = node.greed == Greed::lazy ? behind : attempt + 1;
        op.otherwise = node.greed == Greed::lazy ? attempt + 1 : behind;
        op.beginnings = beginnings;
    }
}

void Pattern::compile_sub(const Node& node, Op::Kind kind) {
    const int32_t sub = emit(kind);
    compile(node);
    emit(Op::Kind::end);
    ops_[static_cast<size_t>(sub)].to = static_cast<int32_t>(ops_.size());
}

uint32_t Pattern::beginnings_of(const Node& node) {
    const First first = first_of(node);
    if (first.may_be_empty) return kAny;
    beginnings_.push_back(first.bytes);
    return static_cast<uint32_t>(beginnings_.size()) - 1;
}

Pattern::First Pattern::first_of(const Node& node) {
    First first;
    const auto add_wide = [&] {
        for (size_t byte = 0x80; byte < 256; byte++) first.bytes.set(byte);
    };
    switch (node.kind) {
        case Kind::character:
            if (node.code < 128)
                first.bytes.set(node.code);
            else
                add_wide();
            break;
        case Kind::set:
            for (uint32_t code = 0; code < 128; code++) first.bytes.set(code, node.set.has(code));
            add_wide();
            break;
        case Kind::sequence:
            first.may_be_empty = true;
            for (const Node& part : node.parts) {
                if (!first.may_be_empty) break;
                const First next = first_of(part);
                first.bytes |= next.bytes;
                first.may_be_empty = next.may_be_empty;
            }
            break;
        case Kind::choice:
            for (const Node& part : node.parts) {
                const First one = first_of(part);
                first.bytes |= one.bytes;
                first.may_be_empty |= one.may_be_empty;
            }
            break;
        case Kind::repeat:
        case Kind::atomic:
            first = first_of(node.parts[0]);
            first.may_be_empty |= node.kind == Kind::repeat && node.least == 0;
            break;
        case Kind::ahead:
        case Kind::line_start:
        case Kind::line_end:
            first.may_be_empty = true;
            break;
    }
    return first;
}

}  // namespace puna
