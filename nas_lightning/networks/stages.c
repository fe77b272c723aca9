/* A stage of a separable convolution on channels-last images: per-channel scale and shift, ReLU, depthwise
 * convolution, 1x1 convolution and the sums of the batch norm behind it, an image at a time, so that what
 * lies between the stages' inputs and outputs stays in a core's cache. The backward pass computes it anew.
 *
 * Compiled once for float and once for double (-DREAL=float). Channels are padded to whole vectors inside.
 */

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define VECTOR_BYTES 64
#define LARGEST_KERNEL 7
#define GROUPS 16 /* of images, whose gradients are summed apart: the sums do not depend on the threads */
#define BLOCK 64  /* pixels worked on at a time, so that their channels stay in the first cache */
#define LANES ((int64_t)(VECTOR_BYTES / sizeof(REAL)))
#define INLINE static inline __attribute__((always_inline))

typedef REAL vector __attribute__((vector_size(VECTOR_BYTES)));
typedef REAL loose_vector __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL))));

typedef struct {
  int64_t batch, height, width, in_channels, channels;
  int64_t kernel, stride, dilation; /* kernel 0: no depthwise convolution; stride 1 */
  int64_t threads;
  double eps;
  const REAL *depthwise, *pointwise, *weight, *bias; /* of the convolutions and the norm */
  REAL *y, *mean, *variance;                         /* the norm's input and its statistics */
  const REAL *factors;                               /* of every image's output, or NULL */
  const REAL *addend;                                /* of the output, or NULL */
  REAL *towards_output;                              /* gradient of the output */
  REAL *towards_depthwise, *towards_pointwise, *towards_weight, *towards_bias;
} stage;

/* Sizes that follow from a stage's. */
typedef struct {
  int64_t padding, padded_width, padded_height, out_height, out_width, pixels;
  int64_t in_blocks, blocks, in_padded, padded; /* vectors of channels; channels of whole vectors */
  int64_t rows;                                 /* of the output, worked on at a time */
} layout;

static layout layout_of(const stage *s) {
  layout l;
  l.padding = s->kernel ? s->dilation * (s->kernel - 1) / 2 : 0;
  l.padded_height = s->height + 2 * l.padding;
  l.padded_width = s->width + 2 * l.padding;
  l.out_height = (s->height + s->stride - 1) / s->stride;
  l.out_width = (s->width + s->stride - 1) / s->stride;
  l.pixels = l.out_height * l.out_width;
  l.in_blocks = (s->in_channels + LANES - 1) / LANES;
  l.blocks = (s->channels + LANES - 1) / LANES;
  l.in_padded = l.in_blocks * LANES;
  l.padded = l.blocks * LANES;
  l.rows = BLOCK / l.out_width < 1 ? 1 : BLOCK / l.out_width;
  return l;
}

/* ---- memory of a thread, kept between calls ---- */

static _Thread_local char *memory = NULL;
static _Thread_local size_t memory_size = 0;

static REAL *reserve(size_t count) {
  size_t bytes = (count * sizeof(REAL) + 4095) / 4096 * 4096;
  if (bytes > memory_size) {
    free(memory);
    memory = aligned_alloc(4096, bytes);
    memory_size = memory ? bytes : 0;
    if (!memory) abort();
  }
  return (REAL *)memory;
}

INLINE size_t in_whole_lines(size_t count) { return (count + 63) / 64 * 64; }

/* Room, to be freed. */
static REAL *room_for(int64_t count) {
  REAL *made = aligned_alloc(64, in_whole_lines((size_t)count + 1) * sizeof(REAL));
  if (!made) abort();
  return made;
}

/* Zeros, to be freed. */
static REAL *numbers(int64_t count) { return memset(room_for(count), 0, (size_t)count * sizeof(REAL)); }

static double *sums_of(int64_t count) {
  double *made = calloc((size_t)count, sizeof(double));
  if (!made) abort();
  return made;
}

/* ---- vectors ---- */

INLINE vector load(const REAL *from) { return *(const loose_vector *)from; }
INLINE void store(REAL *to, vector v) { *(loose_vector *)to = v; }

INLINE vector load_some(const REAL *from, int64_t count) {
  vector v = {0};
  memcpy(&v, from, (size_t)count * sizeof(REAL));
  return v;
}

INLINE vector load_block(const REAL *from, int64_t block, int64_t channels) {
  int64_t left = channels - block * LANES;
  return left >= LANES ? load(from + block * LANES) : load_some(from + block * LANES, left);
}

INLINE void store_block(REAL *to, int64_t block, int64_t channels, vector v) {
  int64_t left = channels - block * LANES;
  if (left >= LANES)
    store(to + block * LANES, v);
  else
    memcpy(to + block * LANES, &v, (size_t)left * sizeof(REAL));
}

/* v where `seen` is above zero or not a number, else zero: ReLU, and its backward pass. */
INLINE vector where_positive(vector v, vector seen) {
  __typeof__(seen <= 0) is_kept = ~(seen <= 0);
  return (vector)(is_kept & (__typeof__(is_kept))v);
}
INLINE vector positive(vector v) { return where_positive(v, v); }

/* ---- weights in whole vectors ---- */

/* [channels, 1, kernel, kernel] as [kernel * kernel][in_padded], turned by half a turn or not. */
static void arrange_depthwise(const stage *s, const layout *l, int turned, REAL *to) {
  int64_t taps = s->kernel * s->kernel;
  for (int64_t c = 0; c < s->in_channels; c++)
    for (int64_t tap = 0; tap < taps; tap++)
      to[(turned ? taps - 1 - tap : tap) * l->in_padded + c] = s->depthwise[c * taps + tap];
}

/* [channels, in_channels] as [in_channels][padded]. */
static void arrange_forward(const stage *s, const layout *l, REAL *to) {
  for (int64_t d = 0; d < s->channels; d++)
    for (int64_t c = 0; c < s->in_channels; c++) to[c * l->padded + d] = s->pointwise[d * s->in_channels + c];
}

/* [channels, in_channels] as [channels][in_padded]. */
static void arrange_backward(const stage *s, const layout *l, REAL *to) {
  for (int64_t d = 0; d < s->channels; d++)
    memcpy(to + d * l->in_padded, s->pointwise + d * s->in_channels, (size_t)s->in_channels * sizeof(REAL));
}

/* ---- parts of an image's work ---- */

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* ReLU of `rows` rows of a (scaled and shifted) image; rows of the result are `to_row` numbers apart. */
static void rectify(const stage *s, const layout *l, int64_t rows, const REAL *x, const REAL *scale,
                    const REAL *shift, REAL *to, int64_t to_row) {
  for (int64_t b = 0; b < l->in_blocks; b++) {
    vector factor = {0}, constant = {0};
    if (scale) factor = load_block(scale, b, s->in_channels), constant = load_block(shift, b, s->in_channels);
    for (int64_t h = 0; h < rows; h++) {
      const REAL *row = x + h * s->width * s->in_channels;
      REAL *out = to + h * to_row + b * LANES;
      for (int64_t w = 0; w < s->width; w++) {
        vector v = load_block(row + w * s->in_channels, b, s->in_channels);
        store(out + w * l->in_padded, positive(scale ? v * factor + constant : v));
      }
    }
  }
}

/* Depthwise convolution of `rows` x `width` pixels, from the upper left corner of a padded image on. */
INLINE void depthwise_of(int64_t kernel, int64_t stride, int64_t dilation, const layout *l, int64_t rows,
                         int64_t width, const REAL *from, const REAL *weight, REAL *to) {
  const int64_t channels = l->in_padded;
  for (int64_t h = 0; h < rows; h++)
    for (int64_t b = 0; b < l->in_blocks; b++) {
      const REAL *corner = from + h * stride * l->padded_width * channels + b * LANES;
      REAL *out = to + h * width * channels + b * LANES;
      int64_t w = 0;
      for (; w + 8 <= width; w += 8) {
        vector sums[8] = {{0}};
        for (int64_t i = 0; i < kernel; i++)
          for (int64_t j = 0; j < kernel; j++) {
            vector tap = load(weight + (i * kernel + j) * channels + b * LANES);
            const REAL *at = corner + (i * dilation * l->padded_width + w * stride + j * dilation) * channels;
            for (int64_t p = 0; p < 8; p++) sums[p] += load(at + p * stride * channels) * tap;
          }
        for (int64_t p = 0; p < 8; p++) store(out + (w + p) * channels, sums[p]);
      }
      for (; w < width; w++) {
        vector sum = {0};
        for (int64_t i = 0; i < kernel; i++)
          for (int64_t j = 0; j < kernel; j++)
            sum += load(corner + (i * dilation * l->padded_width + w * stride + j * dilation) * channels) *
                   load(weight + (i * kernel + j) * channels + b * LANES);
        store(out + w * channels, sum);
      }
    }
}

/* The same for 3x3 weights, stride and dilation 1, two rows and eight columns at a time: each pixel is loaded
 * once for all its products. */
static void depthwise_3x3(const layout *l, int64_t rows, int64_t width, const REAL *from, const REAL *weight,
                          REAL *to) {
  const int64_t channels = l->in_padded, row_step = l->padded_width * channels;
  for (int64_t b = 0; b < l->in_blocks; b++) {
    vector taps[9];
#pragma GCC unroll 9
    for (int tap = 0; tap < 9; tap++) taps[tap] = load(weight + tap * channels + b * LANES);
    for (int64_t h = 0; h < rows; h += 2)
      for (int64_t w = 0; w < width; w += 8) {
        vector sums[2][8] = {{{0}}};
        const REAL *corner = from + h * row_step + w * channels + b * LANES;
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
#pragma GCC unroll 10
          for (int j = 0; j < 10; j++) {
            vector v = load(corner + i * row_step + j * channels);
#pragma GCC unroll 2
            for (int r = 0; r < 2; r++)
#pragma GCC unroll 8
              for (int p = 0; p < 8; p++)
                if (i - r >= 0 && i - r < 3 && j - p >= 0 && j - p < 3)
                  sums[r][p] += v * taps[3 * (i - r) + j - p];
          }
        REAL *out = to + (h * width + w) * channels + b * LANES;
#pragma GCC unroll 2
        for (int r = 0; r < 2; r++)
#pragma GCC unroll 8
          for (int p = 0; p < 8; p++) store(out + (r * width + p) * channels, sums[r][p]);
      }
  }
}

static void depthwise(int64_t kernel, int64_t stride, int64_t dilation, const layout *l, int64_t rows,
                      int64_t width, const REAL *from, const REAL *weight, REAL *to) {
  if (kernel == 3 && stride == 1 && dilation == 1 && rows % 2 == 0 && width % 8 == 0)
    depthwise_3x3(l, rows, width, from, weight, to);
  else if (kernel == 3 && stride == 1)
    depthwise_of(3, 1, dilation, l, rows, width, from, weight, to);
  else if (kernel == 5 && stride == 1)
    depthwise_of(5, 1, dilation, l, rows, width, from, weight, to);
  else
    depthwise_of(kernel, stride, dilation, l, rows, width, from, weight, to);
}

/* Gradient of the depthwise weights, added to `to`: products of the padded image and the gradient of `rows`
 * rows of results, which lies spread out like the image. */
INLINE void depthwise_weights_of(int64_t kernel, int64_t at_once, const stage *s, const layout *l,
                                 int64_t rows, const REAL *image, const REAL *gradient, REAL *to) {
  const int64_t channels = l->in_padded, step = s->stride * channels, row_step = l->padded_width * step;
  for (int64_t b = 0; b < l->in_blocks; b++)
    for (int64_t i = 0; i < kernel; i++) {
      vector sums[4][LARGEST_KERNEL] = {{{0}}};
      for (int64_t h = 0; h < rows; h++) {
        const REAL *pixels = image + h * row_step + i * s->dilation * l->padded_width * channels + b * LANES;
        const REAL *g = gradient + h * row_step + b * LANES;
        int64_t w = 0;
        for (; w + at_once <= l->out_width; w += at_once)
          for (int64_t p = 0; p < at_once; p++)
            for (int64_t j = 0; j < kernel; j++)
              sums[p][j] +=
                  load(pixels + (w + p) * step + j * s->dilation * channels) * load(g + (w + p) * step);
        for (; w < l->out_width; w++)
          for (int64_t j = 0; j < kernel; j++)
            sums[0][j] += load(pixels + w * step + j * s->dilation * channels) * load(g + w * step);
      }
      for (int64_t p = 0; p < at_once; p++)
        for (int64_t j = 0; j < kernel; j++) {
          REAL *at = to + (i * kernel + j) * channels + b * LANES;
          store(at, load(at) + sums[p][j]);
        }
    }
}

/* The same for 3x3 weights, stride and dilation 1: each pixel and each gradient is loaded once a row. */
static void depthwise_weights_3x3(const stage *s, const layout *l, int64_t rows, const REAL *image,
                                  const REAL *gradient, REAL *to) {
  const int64_t channels = l->in_padded, row_step = l->padded_width * channels;
  for (int64_t b = 0; b < l->in_blocks; b++) {
    vector sums[9] = {{0}};
    for (int64_t h = 0; h < rows; h++) {
      const REAL *pixels = image + h * row_step + b * LANES, *g = gradient + h * row_step + b * LANES;
      vector before_last = {0}, last = {0};
      for (int64_t w = 0; w < s->width + 2; w++) {
        vector now = load(g + w * channels); /* zero behind the last column: `gradient` is padded */
#pragma GCC unroll 3
        for (int i = 0; i < 3; i++) {
          vector v = load(pixels + i * row_step + w * channels);
          sums[3 * i] += v * now;
          sums[3 * i + 1] += v * last;
          sums[3 * i + 2] += v * before_last;
        }
        before_last = last, last = now;
      }
    }
#pragma GCC unroll 9
    for (int tap = 0; tap < 9; tap++) {
      REAL *at = to + tap * channels + b * LANES;
      store(at, load(at) + sums[tap]);
    }
  }
}

static void depthwise_weights(const stage *s, const layout *l, int64_t rows, const REAL *image,
                              const REAL *gradient, REAL *to) {
  if (s->kernel == 3 && s->stride == 1 && s->dilation == 1)
    depthwise_weights_3x3(s, l, rows, image, gradient, to);
  else if (s->kernel == 3)
    depthwise_weights_of(3, 4, s, l, rows, image, gradient, to);
  else if (s->kernel == 5)
    depthwise_weights_of(5, 2, s, l, rows, image, gradient, to);
  else
    depthwise_weights_of(s->kernel, 1, s, l, rows, image, gradient, to);
}

/* Products of rows of numbers with a matrix [inner][columns' vectors]. */
INLINE void product_of(int64_t pixels, int64_t columns, int64_t inner, const REAL *from, int64_t from_step,
                       const REAL *matrix, int64_t matrix_step, REAL *to, int64_t to_step) {
  vector sums[8][2] = {{{0}}};
  for (int64_t c = 0; c < inner; c++) {
    vector row[2];
    for (int64_t k = 0; k < columns; k++) row[k] = load(matrix + c * matrix_step + k * LANES);
    for (int64_t p = 0; p < pixels; p++)
      for (int64_t k = 0; k < columns; k++) sums[p][k] += row[k] * from[p * from_step + c];
  }
  for (int64_t p = 0; p < pixels; p++)
    for (int64_t k = 0; k < columns; k++) store(to + p * to_step + k * LANES, sums[p][k]);
}

static void product(int64_t pixels, int64_t blocks, int64_t inner, const REAL *from, int64_t from_step,
                    const REAL *matrix, REAL *to, int64_t to_step) {
  const int64_t step = blocks * LANES;
  int64_t p = 0;
  for (; p + 8 <= pixels; p += 8) {
    const REAL *rows = from + p * from_step;
    REAL *out = to + p * to_step;
    int64_t b = 0;
    for (; b + 2 <= blocks; b += 2)
      product_of(8, 2, inner, rows, from_step, matrix + b * LANES, step, out + b * LANES, to_step);
    if (b < blocks)
      product_of(8, 1, inner, rows, from_step, matrix + b * LANES, step, out + b * LANES, to_step);
  }
  for (; p < pixels; p++)
    for (int64_t b = 0; b < blocks; b++)
      product_of(1, 1, inner, from + p * from_step, from_step, matrix + b * LANES, step,
                 to + p * to_step + b * LANES, to_step);
}

/* Sums over pixels of the products of every two channels, added to `to` [rows][columns' vectors]. */
INLINE void outer_of(int64_t rows, int64_t columns, int64_t pixels, const REAL *a, int64_t a_step,
                     const REAL *b, int64_t b_step, REAL *to) {
  vector sums[8][2];
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; k < columns; k++) sums[r][k] = load(to + r * b_step + k * LANES);
  for (int64_t p = 0; p < pixels; p++) {
    vector right[2];
    for (int64_t k = 0; k < columns; k++) right[k] = load(b + p * b_step + k * LANES);
    for (int64_t r = 0; r < rows; r++)
      for (int64_t k = 0; k < columns; k++) sums[r][k] += right[k] * a[p * a_step + r];
  }
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; k < columns; k++) store(to + r * b_step + k * LANES, sums[r][k]);
}

static void outer(int64_t pixels, int64_t rows, const REAL *a, int64_t a_step, int64_t blocks, const REAL *b,
                  REAL *to) {
  const int64_t step = blocks * LANES;
  int64_t r = 0;
  for (; r + 8 <= rows; r += 8) {
    int64_t k = 0;
    for (; k + 2 <= blocks; k += 2)
      outer_of(8, 2, pixels, a + r, a_step, b + k * LANES, step, to + r * step + k * LANES);
    if (k < blocks) outer_of(8, 1, pixels, a + r, a_step, b + k * LANES, step, to + r * step + k * LANES);
  }
  for (; r < rows; r++)
    for (int64_t k = 0; k < blocks; k++)
      outer_of(1, 1, pixels, a + r, a_step, b + k * LANES, step, to + r * step + k * LANES);
}

/* Keep a block of results, and take it into the mean and the sum of squares [2][padded] of `before` pixels.
 */
static void keep_results(const stage *s, const layout *l, int64_t pixels, int64_t before, const REAL *result,
                         REAL *y, REAL *moments) {
  const REAL share = (REAL)pixels / (REAL)(before + pixels);
  for (int64_t b = 0; b < l->blocks; b++) {
    vector sum = {0}, squares = {0};
    for (int64_t p = 0; p < pixels; p++) {
      vector v = load(result + p * l->padded + b * LANES);
      sum += v;
      store_block(y + p * s->channels, b, s->channels, v);
    }
    vector centre = sum / (REAL)pixels;
    for (int64_t p = 0; p < pixels; p++) {
      vector v = load(result + p * l->padded + b * LANES) - centre;
      squares += v * v;
    }
    REAL *mean = moments + b * LANES, *apart = mean + l->padded;
    vector difference = centre - load(mean);
    store(mean, load(mean) + difference * share);
    store(apart, load(apart) + squares + difference * difference * (share * (REAL)before));
  }
}

/* ReLU of the norm of `rows` rows of results, into the inside of the next stage's image. */
static void hand_on(const stage *s, const layout *l, int64_t rows, const REAL *result, const REAL *affine,
                    REAL *to, int64_t to_row) {
  for (int64_t b = 0; b < l->blocks; b++) {
    const vector scale = load_block(affine, b, s->channels);
    const vector shift = load_block(affine + s->channels, b, s->channels);
    for (int64_t h = 0; h < rows; h++)
      for (int64_t w = 0; w < l->out_width; w++)
        store(to + h * to_row + w * l->padded + b * LANES,
              positive(load(result + (h * l->out_width + w) * l->padded + b * LANES) * scale + shift));
  }
}

/* The norm of a block of results, plus the addend. */
static void keep_output(const stage *s, const layout *l, int64_t pixels, const REAL *result,
                        const REAL *affine, const REAL *addend, REAL *to) {
  for (int64_t b = 0; b < l->blocks; b++) {
    const vector scale = load_block(affine, b, s->channels);
    const vector shift = load_block(affine + s->channels, b, s->channels);
    for (int64_t p = 0; p < pixels; p++) {
      vector v = load(result + p * l->padded + b * LANES) * scale + shift;
      if (addend) v += load_block(addend + p * s->channels, b, s->channels);
      store_block(to + p * s->channels, b, s->channels, v);
    }
  }
}

/* Gradient of `pixels` results of a stage from that of the norm behind it; coefficients [4][padded]. */
static void through_norm(const stage *s, const layout *l, int64_t pixels, const REAL *g, int64_t g_step,
                         REAL factor, const REAL *y, const REAL *coefficients, REAL *to) {
  for (int64_t b = 0; b < l->blocks; b++) {
    const REAL *own = coefficients + b * LANES;
    vector scale = load(own) * factor, constant = load(own + l->padded);
    vector slope = load(own + 2 * l->padded), centre = load(own + 3 * l->padded);
    for (int64_t p = 0; p < pixels; p++)
      store(to + p * l->padded + b * LANES,
            load_block(g + p * g_step, b, s->channels) * scale +
                (load_block(y + p * s->channels, b, s->channels) - centre) * slope + constant);
  }
}

/* Gradient of `rows` rows of a stage's input from that of its ReLU; with a norm before it, sums
 * [2][in_padded]. */
static void through_relu(const stage *s, const layout *l, int64_t rows, const REAL *g, const REAL *rectified,
                         int64_t rectified_row, const REAL *x, const REAL *mean, REAL *to, REAL *sums) {
  for (int64_t b = 0; b < l->in_blocks; b++) {
    vector sum = {0}, products = {0}, centre = {0};
    if (mean) centre = load_block(mean, b, s->in_channels);
    for (int64_t h = 0; h < rows; h++)
      for (int64_t w = 0; w < s->width; w++) {
        int64_t p = h * s->width + w;
        vector v = where_positive(load(g + p * l->in_padded + b * LANES),
                                  load(rectified + h * rectified_row + w * l->in_padded + b * LANES));
        store_block(to + p * s->in_channels, b, s->in_channels, v);
        if (mean) {
          sum += v;
          products += v * (load_block(x + p * s->in_channels, b, s->in_channels) - centre);
        }
      }
    store(sums + b * LANES, load(sums + b * LANES) + sum);
    store(sums + l->in_padded + b * LANES, load(sums + l->in_padded + b * LANES) + products);
  }
}

/* ---- a stage ---- */

/* Scale and shift of a norm by channel, [2][channels]; to be freed. */
static REAL *affine_of(const stage *s) {
  REAL *affine = numbers(2 * s->channels);
  for (int64_t c = 0; c < s->channels; c++) {
    const double scale = s->weight[c] / sqrt(s->variance[c] + s->eps);
    affine[c] = (REAL)scale;
    affine[s->channels + c] = (REAL)(s->bias[c] - s->mean[c] * scale);
  }
  return affine;
}

/* y [batch, pixels, channels] of a stage; its mean and (biased) variance by channel. */
static void forward(const stage *s, const REAL *x, const REAL *scale, const REAL *shift) {
  const layout l = layout_of(s);
  REAL *taps = numbers(s->kernel * s->kernel * l.in_padded), *matrix = numbers(s->in_channels * l.padded);
  double *means = sums_of(2 * s->batch * s->channels), *squares = means + s->batch * s->channels;
  arrange_depthwise(s, &l, 0, taps);
  arrange_forward(s, &l, matrix);

#pragma omp parallel num_threads((int)s->threads)
  {
    const size_t image_size = in_whole_lines((size_t)(l.padded_height * l.padded_width * l.in_padded));
    const size_t middle_size = in_whole_lines((size_t)(l.rows * l.out_width * l.in_padded));
    const size_t result_size = in_whole_lines((size_t)(l.rows * l.out_width * l.padded));
    REAL *image = reserve(image_size + middle_size + result_size + (size_t)(2 * l.padded));
    REAL *middle = image + image_size, *result = middle + middle_size, *moments = result + result_size;
    memset(image, 0, image_size * sizeof(REAL));
    REAL *inside = image + (l.padding * l.padded_width + l.padding) * l.in_padded;
#pragma omp for schedule(dynamic)
    for (int64_t n = 0; n < s->batch; n++) {
      const REAL *in = x + n * s->height * s->width * s->in_channels;
      if (s->kernel) rectify(s, &l, s->height, in, scale, shift, inside, l.padded_width * l.in_padded);
      memset(moments, 0, (size_t)(2 * l.padded) * sizeof(REAL));
      for (int64_t h = 0; h < l.out_height; h += l.rows) {
        const int64_t rows = smaller(l.rows, l.out_height - h), pixels = rows * l.out_width,
                      before = h * l.out_width;
        if (s->kernel)
          depthwise(s->kernel, s->stride, s->dilation, &l, rows, l.out_width,
                    image + h * s->stride * l.padded_width * l.in_padded, taps, middle);
        else
          rectify(s, &l, rows, in + before * s->in_channels, scale, shift, middle, s->width * l.in_padded);
        product(pixels, l.blocks, s->in_channels, middle, l.in_padded, matrix, result, l.padded);
        keep_results(s, &l, pixels, before, result, s->y + (n * l.pixels + before) * s->channels, moments);
      }
      for (int64_t c = 0; c < s->channels; c++) {
        means[n * s->channels + c] = moments[c];
        squares[n * s->channels + c] = moments[l.padded + c];
      }
    }
  }
  for (int64_t c = 0; c < s->channels; c++) {
    double centre = 0, apart = 0;
    for (int64_t n = 0; n < s->batch; n++) centre += means[n * s->channels + c] / (double)s->batch;
    for (int64_t n = 0; n < s->batch; n++) {
      double difference = means[n * s->channels + c] - centre;
      apart += squares[n * s->channels + c] + difference * difference * (double)l.pixels;
    }
    s->mean[c] = (REAL)centre;
    s->variance[c] = (REAL)(apart / (double)(s->batch * l.pixels));
  }
  free(taps), free(matrix), free(means);
}

/* The norm's output, times the factor, plus the addend. */
static void normalise(const stage *s, REAL *to) {
  const layout l = layout_of(s);
  REAL *affine = affine_of(s);
#pragma omp parallel for schedule(dynamic) num_threads((int)s->threads)
  for (int64_t n = 0; n < s->batch; n++) {
    const REAL factor = s->factors ? s->factors[n] : 1;
    for (int64_t b = 0; b < l.blocks; b++) {
      const vector scale = load_block(affine, b, s->channels) * factor;
      const vector shift = load_block(affine + s->channels, b, s->channels) * factor;
      for (int64_t p = n * l.pixels; p < (n + 1) * l.pixels; p++) {
        vector v = load_block(s->y + p * s->channels, b, s->channels) * scale + shift;
        if (s->addend) v += load_block(s->addend + p * s->channels, b, s->channels);
        store_block(to + p * s->channels, b, s->channels, v);
      }
    }
  }
  free(affine);
}

/* Sums over all pixels of g and of g * (y - mean), g with its factor, [2][channels]; pixels of g are `g_step`
 * numbers apart. */
static void norm_sums(const stage *s, const REAL *g, int64_t g_step, double *to) {
  const layout l = layout_of(s);
  double *all = sums_of(s->batch * 2 * s->channels);
#pragma omp parallel for schedule(dynamic) num_threads((int)s->threads)
  for (int64_t n = 0; n < s->batch; n++) {
    double *own = all + n * 2 * s->channels;
    const REAL factor = s->factors ? s->factors[n] : 1;
    for (int64_t b = 0; b < l.blocks; b++) {
      vector sum = {0}, product = {0}, centre = load_block(s->mean, b, s->channels);
      for (int64_t p = n * l.pixels; p < (n + 1) * l.pixels; p++) {
        vector v = load_block(g + p * g_step, b, s->channels);
        sum += v;
        product += v * (load_block(s->y + p * s->channels, b, s->channels) - centre);
      }
      for (int64_t k = 0; k < LANES && b * LANES + k < s->channels; k++) {
        own[b * LANES + k] = (double)(sum[k] * factor);
        own[s->channels + b * LANES + k] = (double)(product[k] * factor);
      }
    }
  }
  for (int64_t k = 0; k < 2 * s->channels; k++) {
    to[k] = 0;
    for (int64_t n = 0; n < s->batch; n++) to[k] += all[n * 2 * s->channels + k];
  }
  free(all);
}

/* Gradients of a stage's weights and of its input, from that of its output and norm_sums of it.
 *
 * Where there is a stage before, `towards_x` is the gradient of its output, and in_sums are norm_sums of it.
 */
static void backward(const stage *s, const stage *before, const REAL *x, const REAL *g, int64_t g_step,
                     const double *sums, REAL *towards_x, double *in_sums) {
  const layout l = layout_of(s);
  REAL *affine = before ? affine_of(before) : NULL;
  const REAL *scale = affine, *shift = before ? affine + s->in_channels : NULL;
  const REAL *in_mean = before ? before->mean : NULL;
  const int64_t taps_size = s->kernel * s->kernel * l.in_padded, matrix_size = s->channels * l.in_padded;
  const int64_t groups = smaller(GROUPS, s->batch);
  const int64_t own_size = taps_size + matrix_size + 2 * l.in_padded;
  REAL *taps = numbers(taps_size), *turned = numbers(taps_size), *matrix = numbers(s->channels * l.in_padded);
  REAL *coefficients = numbers(4 * l.padded), *all = room_for(groups * own_size);
  arrange_depthwise(s, &l, 0, taps);
  arrange_depthwise(s, &l, 1, turned);
  arrange_backward(s, &l, matrix);
  const double count = (double)(s->batch * l.pixels);
  for (int64_t c = 0; c < s->channels; c++) {
    const double deviation = 1 / sqrt(s->variance[c] + s->eps);
    const double factor = s->weight[c] * deviation;
    coefficients[c] = (REAL)factor;
    coefficients[l.padded + c] = (REAL)(-factor * sums[c] / count);
    coefficients[2 * l.padded + c] = (REAL)(-factor * deviation * deviation * sums[s->channels + c] / count);
    coefficients[3 * l.padded + c] = s->mean[c];
    s->towards_weight[c] = (REAL)(sums[s->channels + c] * deviation);
    s->towards_bias[c] = (REAL)sums[c];
  }

#pragma omp parallel num_threads((int)s->threads)
  {
    const size_t image_size = in_whole_lines((size_t)(l.padded_height * l.padded_width * l.in_padded));
    const size_t middle_size = in_whole_lines((size_t)(l.rows * s->stride * s->width * l.in_padded));
    const size_t result_size = in_whole_lines((size_t)(l.rows * l.out_width * l.padded));
    /* `spread`: the gradient of the depthwise results, apart by the stride and padded like the image */
    REAL *image = reserve(2 * image_size + 2 * middle_size + result_size);
    REAL *spread = image + image_size, *middle = spread + image_size;
    REAL *towards_middle = middle + middle_size, *towards_y = towards_middle + middle_size;
    memset(image, 0, 2 * image_size * sizeof(REAL));
    const int64_t corner = (l.padding * l.padded_width + l.padding) * l.in_padded;
    const int64_t image_row = l.padded_width * l.in_padded, row = s->width * l.in_padded;
#pragma omp for schedule(dynamic)
    for (int64_t group = 0; group < groups; group++) {
      REAL *own_taps = all + group * own_size;
      REAL *own_matrix = own_taps + taps_size, *own_sums = own_matrix + matrix_size;
      memset(own_taps, 0, (size_t)own_size * sizeof(REAL));
      for (int64_t n = group * s->batch / groups; n < (group + 1) * s->batch / groups; n++) {
        const REAL *in = x + n * s->height * s->width * s->in_channels;
        REAL *out = towards_x + n * s->height * s->width * s->in_channels;
        if (s->kernel) rectify(s, &l, s->height, in, scale, shift, image + corner, image_row);
        for (int64_t h = 0; h < l.out_height; h += l.rows) {
          const int64_t rows = smaller(l.rows, l.out_height - h), pixels = rows * l.out_width,
                        done = h * l.out_width;
          const int64_t at = n * l.pixels + done;
          through_norm(s, &l, pixels, g + at * g_step, g_step, s->factors ? s->factors[n] : 1,
                       s->y + at * s->channels, coefficients, towards_y);
          if (s->kernel) {
            const REAL *first = image + h * s->stride * image_row;
            REAL *spread_first = spread + corner + h * s->stride * image_row;
            depthwise(s->kernel, s->stride, s->dilation, &l, rows, l.out_width, first, taps, middle);
            for (int64_t r = 0; r < rows; r++)
              product(l.out_width, l.in_blocks, s->channels, towards_y + r * l.out_width * l.padded, l.padded,
                      matrix, spread_first + r * s->stride * image_row, s->stride * l.in_padded);
            depthwise_weights(s, &l, rows, first, spread_first, own_taps);
          } else {
            const int64_t start = done * s->in_channels;
            rectify(s, &l, rows, in + start, scale, shift, middle, row);
            product(pixels, l.in_blocks, s->channels, towards_y, l.padded, matrix, towards_middle,
                    l.in_padded);
            through_relu(s, &l, rows, towards_middle, middle, row, in + start, in_mean, out + start,
                         own_sums);
          }
          outer(pixels, s->channels, towards_y, l.padded, l.in_blocks, middle, own_matrix);
        }
        if (s->kernel)
          for (int64_t h = 0; h < s->height; h += l.rows) {
            const int64_t rows = smaller(l.rows, s->height - h), start = h * s->width * s->in_channels;
            depthwise(s->kernel, 1, s->dilation, &l, rows, s->width, spread + h * image_row, turned,
                      towards_middle);
            through_relu(s, &l, rows, towards_middle, image + corner + h * image_row, image_row, in + start,
                         in_mean, out + start, own_sums);
          }
      }
    }
#pragma omp for schedule(static)
    for (int64_t k = 0; k < own_size; k++)
      for (int64_t group = 1; group < groups; group++) all[k] += all[group * own_size + k];
  }
  for (int64_t c = 0; c < s->in_channels; c++) {
    for (int64_t tap = 0; tap < s->kernel * s->kernel; tap++)
      s->towards_depthwise[c * s->kernel * s->kernel + tap] = all[tap * l.in_padded + c];
    for (int64_t d = 0; d < s->channels; d++)
      s->towards_pointwise[d * s->in_channels + c] = all[taps_size + d * l.in_padded + c];
    in_sums[c] = all[taps_size + matrix_size + c];
    in_sums[s->in_channels + c] = all[taps_size + matrix_size + l.in_padded + c];
  }
  free(taps), free(turned), free(matrix), free(coefficients), free(all), free(affine);
}

/* ---- what Python calls ---- */

/* The output of `count` stages; fills y, mean and variance of each. */
void stages_forward(const stage *stages, int64_t count, const REAL *x, REAL *output) {
  forward(stages, x, NULL, NULL);
  for (int64_t k = 1; k < count; k++) {
    REAL *affine = affine_of(stages + k - 1);
    forward(stages + k, stages[k - 1].y, affine, affine + stages[k].in_channels);
    free(affine);
  }
  normalise(stages + count - 1, output);
}

/* The gradient of the input; fills all `towards_` of every stage but towards_output of the last, which is
 * `g`. */
void stages_backward(const stage *stages, int64_t count, const REAL *x, const REAL *g, int64_t g_step,
                     REAL *towards_x) {
  double *sums = sums_of(2 * stages[count - 1].channels);
  norm_sums(stages + count - 1, g, g_step, sums);
  for (int64_t k = count - 1; k >= 0; k--) {
    const stage *before = k ? stages + k - 1 : NULL;
    double *in_sums = sums_of(2 * stages[k].in_channels);
    backward(stages + k, before, before ? before->y : x, g, g_step, sums,
             before ? before->towards_output : towards_x, in_sums);
    free(sums);
    sums = in_sums;
    if (before) g = before->towards_output, g_step = before->channels;
  }
  free(sums);
}

/* The output of `count` stages with means and variances as they are: an image goes through all of them in the
 * cache, and no y is kept. */
void stages_evaluate(const stage *stages, int64_t count, const REAL *x, REAL *output) {
  layout *layouts = malloc((size_t)count * sizeof(layout));
  REAL **affines = malloc((size_t)count * sizeof(REAL *)), **taps = malloc((size_t)count * sizeof(REAL *));
  REAL **matrices = malloc((size_t)count * sizeof(REAL *));
  size_t *starts = malloc((size_t)(count + 1) * sizeof(size_t)); /* of the stages' images */
  if (!layouts || !affines || !taps || !matrices || !starts) abort();
  size_t middle_size = 0, result_size = 0;
  starts[0] = 0;
  for (int64_t k = 0; k < count; k++) {
    const stage *s = stages + k;
    const layout l = layouts[k] = layout_of(s);
    affines[k] = affine_of(s);
    taps[k] = numbers(s->kernel * s->kernel * l.in_padded);
    matrices[k] = numbers(s->in_channels * l.padded);
    arrange_depthwise(s, &l, 0, taps[k]);
    arrange_forward(s, &l, matrices[k]);
    starts[k + 1] = starts[k] + in_whole_lines((size_t)(l.padded_height * l.padded_width * l.in_padded));
    const size_t middle = in_whole_lines((size_t)(l.rows * l.out_width * l.in_padded));
    const size_t result = in_whole_lines((size_t)(l.rows * l.out_width * l.padded));
    middle_size = middle > middle_size ? middle : middle_size;
    result_size = result > result_size ? result : result_size;
  }

#pragma omp parallel num_threads((int)stages->threads)
  {
    REAL *images = reserve(starts[count] + middle_size + result_size);
    REAL *middle = images + starts[count], *result = middle + middle_size;
    memset(images, 0, starts[count] * sizeof(REAL));
#pragma omp for schedule(dynamic)
    for (int64_t n = 0; n < stages->batch; n++)
      for (int64_t k = 0; k < count; k++) {
        const stage *s = stages + k;
        const layout l = layouts[k];
        const REAL *in = x + n * s->height * s->width * s->in_channels; /* the first stage's */
        REAL *image = images + starts[k];
        if (k == 0 && s->kernel)
          rectify(s, &l, s->height, in, NULL, NULL,
                  image + (l.padding * l.padded_width + l.padding) * l.in_padded,
                  l.padded_width * l.in_padded);
        for (int64_t h = 0; h < l.out_height; h += l.rows) {
          const int64_t rows = smaller(l.rows, l.out_height - h), done = h * l.out_width;
          const REAL *inner = middle;
          if (s->kernel)
            depthwise(s->kernel, s->stride, s->dilation, &l, rows, l.out_width,
                      image + h * s->stride * l.padded_width * l.in_padded, taps[k], middle);
          else if (k == 0)
            rectify(s, &l, rows, in + done * s->in_channels, NULL, NULL, middle, s->width * l.in_padded);
          else
            inner = image + done * l.in_padded;
          product(rows * l.out_width, l.blocks, s->in_channels, inner, l.in_padded, matrices[k], result,
                  l.padded);
          if (k + 1 < count) {
            const layout next = layouts[k + 1];
            REAL *to = images + starts[k + 1] +
                       ((h + next.padding) * next.padded_width + next.padding) * next.in_padded;
            hand_on(s, &l, rows, result, affines[k], to, next.padded_width * next.in_padded);
          } else {
            const int64_t at = (n * l.pixels + done) * s->channels;
            keep_output(s, &l, rows * l.out_width, result, affines[k], s->addend ? s->addend + at : NULL,
                        output + at);
          }
        }
      }
  }
  for (int64_t k = 0; k < count; k++) free(affines[k]), free(taps[k]), free(matrices[k]);
  free(layouts), free(affines), free(taps), free(matrices), free(starts);
}
