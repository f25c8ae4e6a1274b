// Reads the heads of a network from a file and writes what docs/microcontroller/kp2d_decode.h makes of them.
#include <stdio.h>
#include <stdlib.h>

#include "kp2d_decode.h"
#include "s.h"

int main(int count, char **words) {
  if (count < 13) return 2;
  const int rows = atoi(words[1]), columns = atoi(words[2]), dim = atoi(words[3]), top_k = atoi(words[4]);
  const float threshold = (float)atof(words[5]);
  const int cells = rows * columns, places = atoi(words[11]) * atoi(words[12]);
  static int8_t heads_read[1 << 22];
  static kp2d_keypoint keypoints[1 << 16];
  static float descriptor[256];
  FILE *file = fopen(words[10], "rb");
  if (!file) return 2;
  if (fread(heads_read, 1, sizeof(heads_read), file) != (size_t)(3 * cells + places * dim)) return 2;
  const kp2d_heads heads = {
      .rows = rows, .columns = columns, .cell = g_s_cell,
      .descriptor_rows = atoi(words[11]), .descriptor_columns = atoi(words[12]), .dim = dim,
      .score = heads_read, .offset = heads_read + cells, .descriptor = heads_read + 3 * cells,
      .scores = g_s_scores,
      .offset_scale = (float)atof(words[6]), .offset_zero = atoi(words[7]),
      .descriptor_scale = (float)atof(words[8]), .descriptor_zero = atoi(words[9])};
  const int found = kp2d_keypoints(&heads, threshold, top_k, keypoints);
  for (int i = 0; i < found; ++i) {
    kp2d_descriptor(&heads, keypoints[i], descriptor);
    printf("%.9g %.9g %.9g", keypoints[i].x, keypoints[i].y, keypoints[i].score);
    for (int j = 0; j < dim; ++j) printf(" %.9g", descriptor[j]);
    printf("\n");
  }
  return 0;
}
