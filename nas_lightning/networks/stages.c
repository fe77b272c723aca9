/* A stage of a separable convolution on channels-last images: per-channel scale and shift, ReLU, depthwise
 * convolution, 1x1 convolution and the sums of the batch norm behind it, an image at a time, so that what lies
 * between the stages' inputs and outputs stays in a core's cache. The backward pass computes it anew.
 *
 * Compiled once for float and once for double (-DREAL=float). Channels are padded to whole vectors inside.
 */

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define VECTOR_BYTES 64
#define LANES ((int64_t)(VECTOR_BYTES / sizeof(REAL)))
#define INLINE static inline __attribute__((always_inline))

typedef REAL vector __attribute__((vector_size(VECTOR_BYTES)));
typedef REAL loose_vector __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL))));

typedef struct {
  int64_t batch, height, width, in_channels, channels;
  int64_t kernel, stride, dilation; /* kernel 0: no depthwise convolution */
  int64_t threads;
} stage;

/* Sizes that follow from a stage's. */
typedef struct {
  int64_t padding, padded_width, padded_height, out_height, out_width, pixels;
  int64_t in_blocks, blocks, in_padded, padded; /* vectors of channels; channels of whole vectors */
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
  if (left >= LANES) store(to + block * LANES, v);
  else memcpy(to + block * LANES, &v, (size_t)left * sizeof(REAL));
}

/* v where `seen` is above zero or not a number, else zero: ReLU, and its backward pass. */
INLINE vector where_positive(vector v, vector seen) {
  __typeof__(seen <= 0) is_kept = ~(seen <= 0);
  return (vector)(is_kept & (__typeof__(is_kept))v);
}
INLINE vector positive(vector v) { return where_positive(v, v); }

/* ---- weights in whole vectors ---- */

/* [channels, 1, kernel, kernel] as [kernel * kernel][in_padded], turned by half a turn or not. */
static void arrange_depthwise(const stage *s, const layout *l, const REAL *weight, int turned, REAL *to) {
  int64_t taps = s->kernel * s->kernel;
  memset(to, 0, (size_t)(taps * l->in_padded) * sizeof(REAL));
  for (int64_t c = 0; c < s->in_channels; c++)
    for (int64_t tap = 0; tap < taps; tap++)
      to[(turned ? taps - 1 - tap : tap) * l->in_padded + c] = weight[c * taps + tap];
}

/* [channels, in_channels] as [in_channels][padded]. */
static void arrange_forward(const stage *s, const layout *l, const REAL *weight, REAL *to) {
  memset(to, 0, (size_t)(s->in_channels * l->padded) * sizeof(REAL));
  for (int64_t d = 0; d < s->channels; d++)
    for (int64_t c = 0; c < s->in_channels; c++) to[c * l->padded + d] = weight[d * s->in_channels + c];
}

/* [channels, in_channels] as [channels][in_padded]. */
static void arrange_backward(const stage *s, const layout *l, const REAL *weight, REAL *to) {
  memset(to, 0, (size_t)(s->channels * l->in_padded) * sizeof(REAL));
  for (int64_t d = 0; d < s->channels; d++)
    memcpy(to + d * l->in_padded, weight + d * s->in_channels, (size_t)s->in_channels * sizeof(REAL));
}

/* ---- parts of an image's work ---- */

/* ReLU of the (scaled and shifted) image, into the inside of a padded one. */
static void rectify(const stage *s, const layout *l, const REAL *x, const REAL *scale, const REAL *shift,
                    REAL *to) {
  for (int64_t b = 0; b < l->in_blocks; b++) {
    vector a = {0}, c = {0};
    if (scale) a = load_block(scale, b, s->in_channels), c = load_block(shift, b, s->in_channels);
    for (int64_t h = 0; h < s->height; h++) {
      const REAL *row = x + h * s->width * s->in_channels;
      REAL *out = to + ((h + l->padding) * l->padded_width + l->padding) * l->in_padded + b * LANES;
      if (scale)
        for (int64_t w = 0; w < s->width; w++)
          store(out + w * l->in_padded, positive(load_block(row + w * s->in_channels, b, s->in_channels) * a + c));
      else
        for (int64_t w = 0; w < s->width; w++)
          store(out + w * l->in_padded, positive(load_block(row + w * s->in_channels, b, s->in_channels)));
    }
  }
}

#define STEP 8 /* pixels whose sums stay in registers */

/* Depthwise convolution of a padded image: `height` x `width` results, `to_width` apart. */
INLINE void depthwise_of(int64_t kernel, int64_t dilation, int64_t stride, int64_t blocks, int64_t height,
                         int64_t width, const REAL *from, int64_t from_width, const REAL *weight, REAL *to) {
  int64_t channels = blocks * LANES;
  for (int64_t h = 0; h < height; h++)
    for (int64_t b = 0; b < blocks; b++) {
      const REAL *rows = from + h * stride * from_width * channels + b * LANES;
      REAL *out = to + h * width * channels + b * LANES;
      int64_t w = 0;
      for (; w + STEP <= width; w += STEP) {
        vector sums[STEP] = {{0}};
        for (int64_t i = 0; i < kernel; i++)
          for (int64_t j = 0; j < kernel; j++) {
            vector tap = load(weight + (i * kernel + j) * channels + b * LANES);
            const REAL *at = rows + (i * dilation * from_width + w * stride + j * dilation) * channels;
            for (int64_t t = 0; t < STEP; t++) sums[t] += load(at + t * stride * channels) * tap;
          }
        for (int64_t t = 0; t < STEP; t++) store(out + (w + t) * channels, sums[t]);
      }
      for (; w < width; w++) {
        vector sum = {0};
        for (int64_t i = 0; i < kernel; i++)
          for (int64_t j = 0; j < kernel; j++)
            sum += load(rows + (i * dilation * from_width + w * stride + j * dilation) * channels) *
                   load(weight + (i * kernel + j) * channels + b * LANES);
        store(out + w * channels, sum);
      }
    }
}

static void depthwise(int64_t kernel, int64_t dilation, int64_t stride, int64_t blocks, int64_t height,
                      int64_t width, const REAL *from, int64_t from_width, const REAL *weight, REAL *to) {
  if (kernel == 3 && stride == 1)
    depthwise_of(3, dilation, 1, blocks, height, width, from, from_width, weight, to);
  else if (kernel == 3)
    depthwise_of(3, dilation, stride, blocks, height, width, from, from_width, weight, to);
  else if (kernel == 5)
    depthwise_of(5, dilation, stride, blocks, height, width, from, from_width, weight, to);
  else
    depthwise_of(kernel, dilation, stride, blocks, height, width, from, from_width, weight, to);
}

/* Gradient of the depthwise weights: products of the padded image and the results' gradient, summed. */
INLINE void depthwise_weights_of(int64_t kernel, const stage *s, const layout *l, const REAL *image,
                                 const REAL *gradient, int64_t row_step, int64_t pixel_step, REAL *to) {
  int64_t channels = l->in_padded;
  for (int64_t b = 0; b < l->in_blocks; b++)
    for (int64_t i = 0; i < kernel; i++) {
      vector sums[7] = {{0}};
      for (int64_t h = 0; h < l->out_height; h++) {
        const REAL *row = image + (h * s->stride + i * s->dilation) * l->padded_width * channels + b * LANES;
        const REAL *g = gradient + h * row_step + b * LANES;
        for (int64_t w = 0; w < l->out_width; w++) {
          vector v = load(g + w * pixel_step);
          for (int64_t j = 0; j < kernel; j++)
            sums[j] += load(row + (w * s->stride + j * s->dilation) * channels) * v;
        }
      }
      for (int64_t j = 0; j < kernel; j++) {
        REAL *at = to + (i * kernel + j) * channels + b * LANES;
        store(at, load(at) + sums[j]);
      }
    }
}

static void depthwise_weights(const stage *s, const layout *l, const REAL *image, const REAL *gradient,
                              int64_t row_step, int64_t pixel_step, REAL *to) {
  if (s->kernel == 3) depthwise_weights_of(3, s, l, image, gradient, row_step, pixel_step, to);
  else if (s->kernel == 5) depthwise_weights_of(5, s, l, image, gradient, row_step, pixel_step, to);
  else depthwise_weights_of(s->kernel, s, l, image, gradient, row_step, pixel_step, to);
}

/* Products of `pixels` rows of `from` with a matrix [inner][blocks of vectors]. */
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
  int64_t step = blocks * LANES;
  int64_t p = 0;
  for (; p + 8 <= pixels; p += 8) {
    const REAL *rows = from + p * from_step;
    REAL *out = to + p * to_step;
    int64_t b = 0;
    for (; b + 2 <= blocks; b += 2)
      product_of(8, 2, inner, rows, from_step, matrix + b * LANES, step, out + b * LANES, to_step);
    if (b < blocks) product_of(8, 1, inner, rows, from_step, matrix + b * LANES, step, out + b * LANES, to_step);
  }
  for (; p < pixels; p++)
    for (int64_t b = 0; b < blocks; b++)
      product_of(1, 1, inner, from + p * from_step, from_step, matrix + b * LANES, step,
                 to + p * to_step + b * LANES, to_step);
}

/* Sum over the pixels of products of every pair of channels, added to `to` [rows][columns' vectors]. */
INLINE void outer_of(int64_t rows, int64_t columns, int64_t pixels, const REAL *a, int64_t a_step,
                     const REAL *b, int64_t b_step, REAL *to, int64_t to_step) {
  vector sums[8][2] = {{{0}}};
  for (int64_t p = 0; p < pixels; p++) {
    vector right[2];
    for (int64_t k = 0; k < columns; k++) right[k] = load(b + p * b_step + k * LANES);
    for (int64_t r = 0; r < rows; r++)
      for (int64_t k = 0; k < columns; k++) sums[r][k] += right[k] * a[p * a_step + r];
  }
  for (int64_t r = 0; r < rows; r++)
    for (int64_t k = 0; k < columns; k++) {
      REAL *at = to + r * to_step + k * LANES;
      store(at, load(at) + sums[r][k]);
    }
}

static void outer(int64_t pixels, int64_t rows, const REAL *a, int64_t a_step, int64_t blocks, const REAL *b,
                  int64_t b_step, REAL *to) {
  int64_t step = blocks * LANES;
  int64_t r = 0;
  for (; r + 8 <= rows; r += 8) {
    int64_t k = 0;
    for (; k + 2 <= blocks; k += 2)
      outer_of(8, 2, pixels, a + r, a_step, b + k * LANES, b_step, to + r * step + k * LANES, step);
    if (k < blocks) outer_of(8, 1, pixels, a + r, a_step, b + k * LANES, b_step, to + r * step + k * LANES, step);
  }
  for (; r < rows; r++)
    for (int64_t k = 0; k < blocks; k++)
      outer_of(1, 1, pixels, a + r, a_step, b + k * LANES, b_step, to + r * step + k * LANES, step);
}

/* ---- what Python calls ---- */

/* y [batch, pixels, channels]; its mean and (biased) variance by channel. */
void stage_forward(const stage *s, const REAL *x, const REAL *scale, const REAL *shift, const REAL *depthwise_weight,
                   const REAL *pointwise_weight, REAL *y, REAL *mean, REAL *variance) {
  const layout l = layout_of(s);
  const int64_t taps = s->kernel * s->kernel;
  REAL *taps_of = aligned_alloc(64, in_whole_lines((size_t)(taps * l.in_padded + 1)) * sizeof(REAL));
  REAL *matrix = aligned_alloc(64, in_whole_lines((size_t)(s->in_channels * l.padded)) * sizeof(REAL));
  double *sums = malloc((size_t)(2 * s->batch * s->channels) * sizeof(double));
  if (!taps_of || !matrix || !sums) abort();
  if (s->kernel) arrange_depthwise(s, &l, depthwise_weight, 0, taps_of);
  arrange_forward(s, &l, pointwise_weight, matrix);

#pragma omp parallel num_threads((int)s->threads)
  {
    size_t image_size = in_whole_lines((size_t)(l.padded_height * l.padded_width * l.in_padded));
    size_t middle_size = in_whole_lines((size_t)(l.pixels * l.in_padded));
    REAL *image = reserve(image_size + middle_size + in_whole_lines((size_t)(l.pixels * l.padded)));
    REAL *middle = image + image_size;
    REAL *result = middle + middle_size;
    memset(image, 0, image_size * sizeof(REAL));
#pragma omp for schedule(static)
    for (int64_t n = 0; n < s->batch; n++) {
      rectify(s, &l, x + n * s->height * s->width * s->in_channels, scale, shift, image);
      const REAL *inner = image;
      if (s->kernel) {
        depthwise(s->kernel, s->dilation, s->stride, l.in_blocks, l.out_height, l.out_width, image,
                  l.padded_width, taps_of, middle);
        inner = middle;
      }
      product(l.pixels, l.blocks, s->in_channels, inner, l.in_padded, matrix, result, l.padded);
      REAL *out = y + n * l.pixels * s->channels;
      for (int64_t b = 0; b < l.blocks; b++) {
        vector sum = {0}, squares = {0};
        for (int64_t p = 0; p < l.pixels; p++) {
          vector v = load(result + p * l.padded + b * LANES);
          sum += v;
          store_block(out + p * s->channels, b, s->channels, v);
        }
        vector centre = sum / (REAL)l.pixels;
        for (int64_t p = 0; p < l.pixels; p++) {
          vector v = load(result + p * l.padded + b * LANES) - centre;
          squares += v * v;
        }
        for (int64_t k = 0; k < LANES && b * LANES + k < s->channels; k++) {
          sums[2 * n * s->channels + b * LANES + k] = centre[k];
          sums[(2 * n + 1) * s->channels + b * LANES + k] = squares[k];
        }
      }
    }
  }
  for (int64_t c = 0; c < s->channels; c++) {
    double total = 0, squares = 0;
    for (int64_t n = 0; n < s->batch; n++) total += sums[2 * n * s->channels + c];
    total /= (double)s->batch;
    for (int64_t n = 0; n < s->batch; n++) {
      double apart = sums[2 * n * s->channels + c] - total;
      squares += sums[(2 * n + 1) * s->channels + c] + apart * apart * (double)l.pixels;
    }
    mean[c] = (REAL)total;
    variance[c] = (REAL)(squares / (double)(s->batch * l.pixels));
  }
  free(taps_of), free(matrix), free(sums);
}

/* y * scale + shift by channel, for `pixels` pixels of every image. */
void normalise(int64_t images, int64_t pixels, int64_t channels, int64_t threads, const REAL *y, const REAL *scale,
               const REAL *shift, REAL *to) {
  int64_t blocks = (channels + LANES - 1) / LANES;
#pragma omp parallel for schedule(static) num_threads((int)threads)
  for (int64_t p = 0; p < images * pixels; p++)
    for (int64_t b = 0; b < blocks; b++)
      store_block(to + p * channels, b, channels,
                  load_block(y + p * channels, b, channels) * load_block(scale, b, channels) +
                      load_block(shift, b, channels));
}

/* Sums over all pixels of g and of g * (y - mean), [2][channels]. */
void norm_sums(int64_t images, int64_t pixels, int64_t channels, int64_t threads, const REAL *g, const REAL *y,
               const REAL *mean, double *to) {
  int64_t blocks = (channels + LANES - 1) / LANES;
  memset(to, 0, (size_t)(2 * channels) * sizeof(double));
  double *all = calloc((size_t)(threads * 2 * channels), sizeof(double));
  if (!all) abort();
#pragma omp parallel num_threads((int)threads)
  {
    double *own = all + omp_get_thread_num() * 2 * channels;
#pragma omp for schedule(static)
    for (int64_t n = 0; n < images; n++)
      for (int64_t b = 0; b < blocks; b++) {
        vector sum = {0}, product = {0}, centre = load_block(mean, b, channels);
        for (int64_t p = n * pixels; p < (n + 1) * pixels; p++) {
          vector v = load_block(g + p * channels, b, channels);
          sum += v;
          product += v * (load_block(y + p * channels, b, channels) - centre);
        }
        for (int64_t k = 0; k < LANES && b * LANES + k < channels; k++) {
          own[b * LANES + k] += sum[k];
          own[channels + b * LANES + k] += product[k];
        }
      }
  }
  for (int64_t t = 0; t < threads; t++)
    for (int64_t k = 0; k < 2 * channels; k++) to[k] += all[t * 2 * channels + k];
  free(all);
}

/* Gradients of a stage and the batch norm behind it.
 *
 * `g` is the gradient of the norm's output, `sums` that of norm_sums for it. Where the stage's input has a
 * norm before it (scale is not NULL), gradient_x is that of the norm's output, and in_sums are its sums.
 */
void stage_backward(const stage *s, const REAL *x, const REAL *scale, const REAL *shift, const REAL *in_mean,
                    const REAL *depthwise_weight, const REAL *pointwise_weight, const REAL *y, const REAL *g,
                    const REAL *norm_weight, const REAL *mean, const REAL *deviation, const double *sums,
                    REAL *gradient_x, REAL *gradient_depthwise, REAL *gradient_pointwise, double *in_sums) {
  const layout l = layout_of(s);
  const int64_t taps = s->kernel * s->kernel;
  const double count = (double)(s->batch * l.pixels);
  const size_t own_size = in_whole_lines((size_t)(taps * l.in_padded)) + in_whole_lines((size_t)(s->in_channels * l.padded));
  REAL *turned = aligned_alloc(64, in_whole_lines((size_t)(taps * l.in_padded + 1)) * sizeof(REAL));
  REAL *taps_of = aligned_alloc(64, in_whole_lines((size_t)(taps * l.in_padded + 1)) * sizeof(REAL));
  REAL *matrix = aligned_alloc(64, in_whole_lines((size_t)(s->channels * l.in_padded)) * sizeof(REAL));
  REAL *coefficients = calloc((size_t)(4 * l.padded), sizeof(REAL));
  REAL *all = aligned_alloc(64, (size_t)s->threads * own_size * sizeof(REAL));
  double *all_sums = calloc((size_t)(s->threads * 2 * s->in_channels), sizeof(double));
  if (!turned || !taps_of || !matrix || !coefficients || !all || !all_sums) abort();
  memset(all, 0, (size_t)s->threads * own_size * sizeof(REAL));
  if (s->kernel) {
    arrange_depthwise(s, &l, depthwise_weight, 0, taps_of);
    arrange_depthwise(s, &l, depthwise_weight, 1, turned);
  }
  arrange_backward(s, &l, pointwise_weight, matrix);
  for (int64_t c = 0; c < s->channels; c++) {
    double factor = (double)norm_weight[c] * deviation[c];
    coefficients[c] = (REAL)factor;
    coefficients[l.padded + c] = (REAL)(-factor * sums[c] / count);
    coefficients[2 * l.padded + c] =
        (REAL)(-factor * deviation[c] * deviation[c] * sums[s->channels + c] / count);
    coefficients[3 * l.padded + c] = mean[c];
  }

#pragma omp parallel num_threads((int)s->threads)
  {
    /* the gradient of the depthwise results, spread out by the stride and padded like the image */
    size_t image_size = in_whole_lines((size_t)(l.padded_height * l.padded_width * l.in_padded));
    size_t middle_size = in_whole_lines((size_t)(s->height * s->width * l.in_padded));
    size_t result_size = in_whole_lines((size_t)(l.pixels * l.padded));
    REAL *image = reserve(2 * image_size + middle_size + result_size);
    REAL *spread = image + image_size;
    REAL *middle = spread + image_size;
    REAL *towards_y = middle + middle_size;
    REAL *own = all + (size_t)omp_get_thread_num() * own_size;
    REAL *own_matrix = own + in_whole_lines((size_t)(taps * l.in_padded));
    double *own_sums = all_sums + omp_get_thread_num() * 2 * s->in_channels;
    memset(image, 0, 2 * image_size * sizeof(REAL));
#pragma omp for schedule(static)
    for (int64_t n = 0; n < s->batch; n++) {
      const REAL *in = x + n * s->height * s->width * s->in_channels;
      REAL *out = gradient_x + n * s->height * s->width * s->in_channels;
      rectify(s, &l, in, scale, shift, image);
      for (int64_t b = 0; b < l.blocks; b++) {
        vector factor = load(coefficients + b * LANES), constant = load(coefficients + l.padded + b * LANES);
        vector slope = load(coefficients + 2 * l.padded + b * LANES), centre = load(coefficients + 3 * l.padded + b * LANES);
        for (int64_t p = 0; p < l.pixels; p++) {
          int64_t at = (n * l.pixels + p) * s->channels;
          store(towards_y + p * l.padded + b * LANES,
                load_block(g + at, b, s->channels) * factor +
                    (load_block(y + at, b, s->channels) - centre) * slope + constant);
        }
      }
      const REAL *inner = image;
      if (s->kernel) {
        depthwise(s->kernel, s->dilation, s->stride, l.in_blocks, l.out_height, l.out_width, image,
                  l.padded_width, taps_of, middle);
        inner = middle;
      }
      outer(l.pixels, s->in_channels, inner, l.in_padded, l.blocks, towards_y, l.padded, own_matrix);
      const REAL *towards_image = spread;
      if (s->kernel) {
        int64_t pixel_step = s->stride * l.in_padded, row_step = s->stride * l.padded_width * l.in_padded;
        REAL *first = spread + (l.padding * l.padded_width + l.padding) * l.in_padded;
        for (int64_t h = 0; h < l.out_height; h++)
          product(l.out_width, l.in_blocks, s->channels, towards_y + h * l.out_width * l.padded, l.padded,
                  matrix, first + h * row_step, pixel_step);
        depthwise_weights(s, &l, image, first, row_step, pixel_step, own);
        depthwise(s->kernel, s->dilation, 1, l.in_blocks, s->height, s->width, spread, l.padded_width, turned,
                  middle);
        towards_image = middle;
      } else {
        product(l.pixels, l.in_blocks, s->channels, towards_y, l.padded, matrix, spread, l.in_padded);
      }
      for (int64_t b = 0; b < l.in_blocks; b++) {
        vector sum = {0}, products = {0}, centre = {0};
        if (scale) centre = load_block(in_mean, b, s->in_channels);
        for (int64_t h = 0; h < s->height; h++) {
          const REAL *seen = image + ((h + l.padding) * l.padded_width + l.padding) * l.in_padded + b * LANES;
          for (int64_t w = 0; w < s->width; w++) {
            int64_t p = h * s->width + w;
            vector v = load(towards_image + p * l.in_padded + b * LANES);
            v = where_positive(v, load(seen + w * l.in_padded));
            store_block(out + p * s->in_channels, b, s->in_channels, v);
            if (scale) {
              sum += v;
              products += v * (load_block(in + p * s->in_channels, b, s->in_channels) - centre);
            }
          }
        }
        if (scale)
          for (int64_t k = 0; k < LANES && b * LANES + k < s->in_channels; k++) {
            own_sums[b * LANES + k] += sum[k];
            own_sums[s->in_channels + b * LANES + k] += products[k];
          }
      }
    }
  }
  for (int64_t c = 0; c < s->in_channels; c++) {
    for (int64_t tap = 0; tap < taps; tap++) {
      REAL total = 0;
      for (int64_t t = 0; t < s->threads; t++) total += all[t * (int64_t)own_size + tap * l.in_padded + c];
      gradient_depthwise[c * taps + tap] = total;
    }
    for (int64_t d = 0; d < s->channels; d++) {
      REAL total = 0;
      for (int64_t t = 0; t < s->threads; t++)
        total += all[t * (int64_t)own_size + (int64_t)in_whole_lines((size_t)(taps * l.in_padded)) + c * l.padded + d];
      gradient_pointwise[d * s->in_channels + c] = total;
    }
  }
  if (scale)
    for (int64_t k = 0; k < 2 * s->in_channels; k++) {
      in_sums[k] = 0;
      for (int64_t t = 0; t < s->threads; t++) in_sums[k] += all_sums[t * 2 * s->in_channels + k];
    }
  free(turned), free(taps_of), free(matrix), free(coefficients), free(all), free(all_sums);
}
