/* One block and one pooling without Python: reads sizes and values from standard input, writes results to
 * standard output, all as double. For processors that only an emulator runs; see test_aarch64.py.
 */

#include <stdio.h>

#include "fused_blocks.c"

/* `count` values from standard input. */
static REAL *read_values(int64_t count) {
  REAL *values = allocate(count);
  if (fread(values, sizeof(REAL), (size_t)count, stdin) != (size_t)count) exit(2);
  return values;
}

/* `count` values to standard output. */
static void write_values(const REAL *values, int64_t count) {
  if (fwrite(values, sizeof(REAL), (size_t)count, stdout) != (size_t)count) exit(3);
}

int main(void) {
  int64_t sizes[8];
  if (fread(sizes, sizeof(int64_t), 8, stdin) != 8) return 1;
  block f = {.batch = sizes[0],       .height = sizes[1],   .width = sizes[2], .in_channels = sizes[3],
             .channels = sizes[4],    .kernel = sizes[5],   .stride = sizes[6], .dilation = sizes[7],
             .threads = 2,            .eps = 1e-5};
  const geometry l = geometry_of(&f);
  const int64_t inputs = f.batch * f.height * f.width * f.in_channels;
  const int64_t outputs = f.batch * l.pixels * f.channels;
  const int64_t taps = f.in_channels * f.kernel * f.kernel, matrix = f.in_channels * f.channels;
  REAL *x = read_values(inputs), *g = read_values(outputs);
  f.depthwise = read_values(taps), f.pointwise = read_values(matrix);
  f.weight = read_values(f.channels), f.bias = read_values(f.channels);
  f.factors = read_values(f.batch), f.addend = read_values(outputs);
  f.y = allocate(outputs), f.mean = allocate(f.channels), f.variance = allocate(f.channels);
  f.grad_depthwise = allocate(taps), f.grad_pointwise = allocate(matrix);
  f.grad_weight = allocate(f.channels), f.grad_bias = allocate(f.channels);
  REAL *output = allocate(outputs), *grad_x = allocate(inputs);
  const part from[] = {{f.in_channels, f.in_channels, x}, {0}};
  const part to[] = {{f.channels, f.channels, output}, {0}};
  const part incoming[] = {{f.channels, f.channels, g}, {0}};
  const part grad[] = {{f.in_channels, f.in_channels, grad_x}, {0}};

  blocks_forward(&f, 1, from, to);
  write_values(output, outputs), write_values(f.mean, f.channels), write_values(f.variance, f.channels);
  blocks_backward(&f, 1, from, incoming, grad);
  write_values(grad_x, inputs), write_values(f.grad_depthwise, taps), write_values(f.grad_pointwise, matrix);
  write_values(f.grad_weight, f.channels), write_values(f.grad_bias, f.channels);
  blocks_evaluate(&f, 1, from, to);
  write_values(output, outputs);

  const window w = {f.batch, f.height, f.width, f.in_channels,     .size = 3, .stride = 2, .padding = 1,
                    (f.height + 1) / 2, (f.width + 1) / 2, .threads = 2};
  const int64_t pooled = f.batch * w.out_height * w.out_width * f.in_channels;
  REAL *largest = allocate(pooled);
  unsigned char *indices = malloc((size_t)pooled);
  if (!indices) return 4;
  max_pool(&w, x, largest, indices);
  write_values(largest, pooled);
  max_pool_backward(&w, largest, indices, grad_x); /* the gradient of half the sum of squares */
  write_values(grad_x, inputs);
  return 0;
}
