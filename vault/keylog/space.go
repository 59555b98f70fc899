package keylog

import (
	"fmt"
	"math"
	"sync"
	"time"
)

// Space is how much room the log has, and how fast it takes it.
type Space struct {
	// Free is how many bytes are left above the reserve, in the folder that has less.
	Free int64

	// PerHour is how many bytes an hour the log took: over the last day, or since it began if that is less. Zero in its first minute.
	PerHour int64
}

// Left is how long it takes until Append refuses, if the log goes on to grow as it did and nothing is moved away. Zero if that is not known.
func (s Space) Left() time.Duration {
	if s.PerHour <= 0 {
		return 0
	}
	hours := float64(s.Free) / float64(s.PerHour)
	if hours > float64(math.MaxInt64)/float64(time.Hour) {
		return math.MaxInt64
	}
	return time.Duration(max(hours, 0) * float64(time.Hour))
}

const (
	paceWindow = 24 * time.Hour
	paceStep   = 10 * time.Minute
	indexBytes = 72 // what an entry takes in the hash and offset files
)

// pace remembers how large the log was when.
type pace struct {
	mu    sync.Mutex
	marks []mark // in order; the first may be older than the window, the others are not
	bytes int64  // now
}

type mark struct {
	at    int64 // Unix milliseconds
	bytes int64
}

// grow notes that the log took some bytes at a time.
func (p *pace) grow(at, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.marks); n == 0 || at-p.marks[n-1].at >= paceStep.Milliseconds() {
		p.marks = append(p.marks, mark{at, p.bytes})
	}
	for len(p.marks) > 1 && at-p.marks[1].at >= paceWindow.Milliseconds() {
		p.marks = p.marks[1:]
	}
	p.bytes += bytes
}

// perHour is the pace until now.
func (p *pace) perHour(now int64) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := mark{at: now}
	for i, m := range p.marks {
		if i == 0 || now-m.at >= paceWindow.Milliseconds() {
			first = m
		}
	}
	took := now - first.at
	if took < time.Minute.Milliseconds() {
		return 0
	}
	return int64(float64(p.bytes-first.bytes) / float64(took) * float64(time.Hour.Milliseconds()))
}

// free is the room above the reserve in the folder that has less.
func (l *Log) free() (int64, error) {
	least := int64(math.MaxInt64)
	for _, dir := range []string{l.cfg.Dir, l.cfg.StateDir} {
		free, err := l.cfg.disk.free(dir)
		if err != nil {
			return 0, fmt.Errorf("measuring free space: %w", err)
		}
		least = min(least, free)
	}
	return least - l.cfg.Reserve, nil
}

// room refuses a commit that would eat into the reserve of either folder. The
// hashes and offsets of an entry take about 72 bytes beside its frame.
func (l *Log) room(bytes int64) error {
	free, err := l.free()
	if err != nil {
		return err
	}
	if free < 4*bytes {
		return fmt.Errorf("%w: %d bytes free, reserve is %d", ErrNoSpace, free+l.cfg.Reserve, l.cfg.Reserve)
	}
	return nil
}

// Space tells how much room is left and how fast the log takes it.
func (l *Log) Space() (Space, error) {
	free, err := l.free()
	if err != nil {
		return Space{}, err
	}
	wall, _ := l.cfg.Clock()
	return Space{Free: max(free, 0), PerHour: l.pace.perHour(wall.UnixMilli())}, nil
}
