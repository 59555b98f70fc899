package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/tests/stage"
)

// clockTick is USER_HZ, the unit of /proc/PID/stat: 100 a second on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// processes are the ones to account for: by name, all process ids.
func processes(s *stage.Stage) map[string][]int {
	out := map[string][]int{"storefront": {s.Storefront.PID()}, "vault": {s.Vault.PID()}, "readers": {os.Getpid()}}
	out["token workers"] = children(s.Vault.PID())
	return out
}

func children(parent int) (out []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range all {
		if f := stat(path); len(f) > 3 && f[1] == strconv.Itoa(parent) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			out = append(out, pid)
		}
	}
	return out
}

// stat is the fields of a stat file from the third on: the second, the command's name, may hold anything.
func stat(path string) []string {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	_, after, _ := strings.Cut(string(data[max(0, strings.LastIndex(string(data), ")")):]), " ")
	return strings.Fields(after)
}

func cpuTimes(s *stage.Stage) map[string]time.Duration {
	out := map[string]time.Duration{}
	for name, pids := range processes(s) {
		for _, pid := range pids {
			if f := stat(fmt.Sprintf("/proc/%d/stat", pid)); len(f) > 12 {
				user, _ := strconv.Atoi(f[11])
				system, _ := strconv.Atoi(f[12])
				out[name] += time.Duration(user+system) * clockTick
			}
		}
	}
	return out
}

func resident(s *stage.Stage) map[string]float64 {
	out := map[string]float64{}
	for name, pids := range processes(s) {
		for _, pid := range pids {
			if f := stat(fmt.Sprintf("/proc/%d/stat", pid)); len(f) > 21 {
				pages, _ := strconv.Atoi(f[21])
				out[name] += float64(pages*os.Getpagesize()) / (1 << 20)
			}
		}
	}
	return out
}
