/* Reads the plant as fast as one C process can, to know the ceiling of the load generator itself.
 *
 *   hammer SECONDS UNITS REGISTERS DEPTH PORT...
 *
 * One connection per port, DEPTH requests of FC 3 in flight on each, units dealt out in turn. Prints one line
 * of JSON: blocks and registers read, seconds. Values are not looked at: the checker does that.
 */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PORTS_MAX = 64, REQUEST = 12, ADU_MAX = 260 };

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void ask(int fd, int *unit, int units, int step, int registers, int count) {
    uint8_t out[64 * REQUEST];
    for (int i = 0; i < count; i++) {
        uint8_t request[REQUEST] = {0, (uint8_t)*unit, 0, 0, 0, 6, (uint8_t)*unit, 3, 0, 0, 0, (uint8_t)registers};
        memcpy(out + i * REQUEST, request, REQUEST);
        *unit += step;
        if (*unit > units) *unit = (*unit - 1) % step + 1;
    }
    if (send(fd, out, (size_t)(count * REQUEST), MSG_NOSIGNAL) != count * REQUEST) { perror("send"); exit(1); }
}

int main(int argc, char **argv) {
    if (argc < 6 || argc - 5 > PORTS_MAX) { fprintf(stderr, "usage: hammer SECONDS UNITS REGISTERS DEPTH PORT...\n"); return 2; }
    double length = atof(argv[1]);
    int units = atoi(argv[2]), registers = atoi(argv[3]), depth = atoi(argv[4]), n = argc - 5;
    if (depth < 1 || depth > 64) { fprintf(stderr, "hammer: depth 1..64\n"); return 2; }
    struct pollfd fds[PORTS_MAX];
    static uint8_t in[PORTS_MAX][65536];
    size_t have[PORTS_MAX] = {0}, reply = 9 + 2 * (size_t)registers;
    int unit[PORTS_MAX], one = 1;
    for (int i = 0; i < n; i++) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                .sin_port = htons((uint16_t)atoi(argv[5 + i]))};
        fds[i] = (struct pollfd){.fd = socket(AF_INET, SOCK_STREAM, 0), .events = POLLIN};
        if (connect(fds[i].fd, (struct sockaddr *)&a, sizeof a)) { perror("connect"); return 1; }
        setsockopt(fds[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        unit[i] = i + 1;
        ask(fds[i].fd, &unit[i], units, n, registers, depth);
    }
    uint64_t blocks = 0;
    double start = seconds(), now = start;
    while ((now = seconds()) - start < length) {
        if (poll(fds, (nfds_t)n, 1000) <= 0) { fprintf(stderr, "hammer: the plant is silent\n"); return 1; }
        for (int i = 0; i < n; i++) {
            if (!(fds[i].revents & POLLIN)) continue;
            ssize_t got = recv(fds[i].fd, in[i] + have[i], sizeof in[i] - have[i], 0);
            if (got <= 0) { fprintf(stderr, "hammer: the plant hung up\n"); return 1; }
            have[i] += (size_t)got;
            int whole = (int)(have[i] / reply);
            if (whole) {
                if (in[i][7] != 3) { fprintf(stderr, "hammer: exception %d\n", in[i][8]); return 1; }
                memmove(in[i], in[i] + (size_t)whole * reply, have[i] - (size_t)whole * reply);
                have[i] -= (size_t)whole * reply;
                blocks += (uint64_t)whole;
                ask(fds[i].fd, &unit[i], units, n, registers, whole);
            }
        }
    }
    printf("{\"blocks\":%llu,\"registers\":%llu,\"seconds\":%.6f}\n", (unsigned long long)blocks,
           (unsigned long long)blocks * (unsigned long long)registers, now - start);
    return 0;
}
