/* The process that holds a pod's namespaces: sleeps, and buries orphans. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void on_stop(int signal) { (void)signal; _exit(0); }

static void on_child(int signal) {
  (void)signal;
  while (waitpid(-1, NULL, WNOHANG) > 0) {
  }
}

int main(void) {
  signal(SIGINT, on_stop);
  signal(SIGTERM, on_stop);
  signal(SIGCHLD, on_child);
  for (;;) pause();
}
