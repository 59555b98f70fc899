package keylog

import (
	"bytes"
	"math"
	"testing"
	"time"
)

// TestSpace: the forecast follows the last day, over a restart too.
func TestSpace(t *testing.T) {
	b := newBench(t).unsynced()
	b.SegmentBytes = 10_000
	start := time.UnixMilli(1_800_000_000_000)
	now := start
	b.Clock = func() (time.Time, time.Duration) { return now, now.Sub(start) }
	free := int64(1 << 30)
	b.disk.free = func(dir string) (int64, error) {
		if dir == b.StateDir {
			return free, nil
		}
		return free + 5000, nil
	}
	b.Reserve = 1 << 20
	l := b.create(t)
	s, err := l.Space()
	if err != nil || s.Free != free-b.Reserve || s.PerHour != 0 || s.Left() != 0 {
		t.Fatalf("%+v, %v", s, err)
	}
	hours := func(n int, bytesAnHour int) {
		for range 4 * n {
			mustAppend(t, l, Record{Body: bytes.Repeat([]byte{1}, bytesAnHour/4-indexBytes-sealSize-2*frameHead-recordHead)})
			now = now.Add(15 * time.Minute)
		}
	}
	near := func(want int64) {
		t.Helper()
		if s, err = l.Space(); err != nil || math.Abs(float64(s.PerHour-want)) > float64(want)/20 {
			t.Fatalf("%+v, %v; want %d an hour", s, err, want)
		}
	}
	hours(3, 8000)
	near(8000)
	if left := s.Left(); math.Abs(left.Hours()-float64(s.Free)/float64(s.PerHour)) > 1 {
		t.Fatalf("%v left of %+v", left, s)
	}
	hours(30, 20_000)
	near(20_000)
	mustClose(t, l)
	l = b.open(t)
	near(20_000)
	now = now.Add(12 * time.Hour)
	near(10_000)
	free = 1000
	if s, err := l.Space(); err != nil || s.Free != 0 {
		t.Fatalf("%+v, %v", s, err)
	}
}
