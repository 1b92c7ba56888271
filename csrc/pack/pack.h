// Between plain matrices and the packed layouts of model/layout.h, and rounding to the nearest.
// Plain matrices are row-major [rows][columns].
#pragma once

#include <cstdint>
#include <span>

#include "model/layout.h"
#include "model/model.h"

namespace puna {

// `out` has room for weight.bytes(), see Weight. f32 and bf16 (rounded to nearest even).
void pack_f32(const float* values, int64_t rows, int64_t columns, uint8_t* out);
void pack_bf16(const float* values, int64_t rows, int64_t columns, uint8_t* out);

// q [rows][columns], scale [rows].
void pack_int8_channel(const int8_t* q, const float* scale, int64_t rows, int64_t columns, uint8_t* out);

// q [rows][columns], scale float16 [rows][ceil(columns / 32)]. Error where a 4-bit value is outside -8 to 7.
void pack_groups(Format format, const int8_t* q, const uint16_t* scale, int64_t rows, int64_t columns,
                 uint8_t* out);

// The same for int4_group32_f32, scale float.
void pack_groups_f32(const int8_t* q, const float* scale, int64_t rows, int64_t columns, uint8_t* out);

// The inverse of packing: values as floats, [rows][columns].
void unpack(const Weight& weight, float* out);

// The integers and scales that a matrix was packed from. Error where it has another format.
void unpack_int8_channel(const Weight& weight, int8_t* q, float* scale);
void unpack_groups(const Weight& weight, int8_t* q, uint16_t* scale);
void unpack_groups_f32(const Weight& weight, int8_t* q, float* scale);

// Round to nearest, symmetric, one float16 scale a group of 32 columns: the scale of a few around the
// largest magnitude that leaves the least squared error. bits 4 or 8; columns beyond the last whole group
// form a shorter one. q [rows][columns], scale [rows][ceil(columns / 32)].
void round_groups(int bits, const float* values, int64_t rows, int64_t columns, int8_t* q, uint16_t* scale);

// The same with one float scale a row, the largest magnitude over 127, or 0 where that is no normal float.
// scale [rows]
void round_channels(const float* values, int64_t rows, int64_t columns, int8_t* q, float* scale);

}  // namespace puna
