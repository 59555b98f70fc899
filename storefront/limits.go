package storefront

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits bound what callers may take. Zero means the default, which suits one small server; a load test raises them.
type Limits struct {
	// Requests a second and at once, by each network address, to routes that need no login and for requests whose signature fails.
	OpenRate  float64 `koanf:"open_rate"`  // default 100
	OpenBurst int     `koanf:"open_burst"` // default 500
	// Identities registered a second and at once, by each network address. Each one is kept for ever, by the vault in memory.
	IdentityRate  float64 `koanf:"identity_rate"`  // default 1
	IdentityBurst int     `koanf:"identity_burst"` // default 200
	// Requests a second and at once, by each logged-in identity.
	LoginRate  float64 `koanf:"login_rate"`  // default 50
	LoginBurst int     `koanf:"login_burst"` // default 200
	// Fields a second and at once, read by each reader, in however many sessions. A request may name 1,000, so the burst is at least that.
	FieldRate  float64 `koanf:"field_rate"`  // default 2000
	FieldBurst int     `koanf:"field_burst"` // default 4000

	Callers      int           `koanf:"callers"`       // how many callers' rates are remembered; default 100,000
	Fields       int           `koanf:"fields"`        // of one owner; default 4,096
	OwnerBytes   int64         `koanf:"owner_bytes"`   // ciphertext of one owner; default 64 MiB
	Logins       int           `koanf:"logins"`        // at the same time; default 100,000
	Sessions     int           `koanf:"sessions"`      // at the same time; default 100,000
	Login        time.Duration `koanf:"login"`         // how long a login lasts; default 15m
	CachedLeaves int           `koanf:"cached_leaves"` // kept in memory: leaves, and manifests and grants as what they weigh; default 200,000
	CachedBytes  int           `koanf:"cached_bytes"`  // ciphertext kept in memory; default 64 MiB
}

// WithDefaults puts the defaults where a limit is zero and refuses limits that make no sense.
func (l Limits) WithDefaults() (Limits, error) {
	if l.IdentityRate < 0 || l.IdentityBurst < 0 || l.OpenRate < 0 || l.LoginRate < 0 || l.FieldRate < 0 || l.OpenBurst < 0 || l.LoginBurst < 0 || l.FieldBurst < 0 || l.Callers < 0 ||
		l.Fields < 0 || l.OwnerBytes < 0 || l.Logins < 0 || l.Sessions < 0 || l.Login < 0 || l.CachedLeaves < 0 || l.CachedBytes < 0 {
		return l, errors.New("limits: a limit is below zero")
	}
	if l.FieldBurst != 0 && l.FieldBurst < 1000 {
		return l, errors.New("limits: field_burst must be at least 1000, the number of fields that one request may name")
	}
	if l.Login != 0 && l.Login < time.Second {
		return l, errors.New("limits: login is a duration such as \"15m\", at least a second")
	}
	orDefault(&l.OpenRate, 100)
	orDefault(&l.OpenBurst, 500)
	orDefault(&l.IdentityRate, 1)
	orDefault(&l.IdentityBurst, 200)
	orDefault(&l.LoginRate, 50)
	orDefault(&l.LoginBurst, 200)
	orDefault(&l.FieldRate, 2000)
	orDefault(&l.FieldBurst, 4000)
	orDefault(&l.Callers, 100_000)
	orDefault(&l.Fields, 4096)
	orDefault(&l.OwnerBytes, 64<<20)
	orDefault(&l.Logins, 100_000)
	orDefault(&l.Sessions, 100_000)
	orDefault(&l.Login, 15*time.Minute)
	orDefault(&l.CachedLeaves, 200_000)
	orDefault(&l.CachedBytes, 64<<20)
	return l, nil
}

func orDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

type limiter = rate.Limiter

// limiters remembers the rates of the callers seen last. A caller that was forgotten begins with a full burst.
type limiters struct {
	mu  sync.Mutex // makes looking up and adding one step
	lru *lru[string, *limiter]
}

func (l *limiters) allow(caller string, now time.Time, perSecond float64, burst, n int) bool {
	l.mu.Lock()
	one, ok := l.lru.get(caller)
	if !ok {
		one = rate.NewLimiter(rate.Limit(perSecond), burst)
		l.lru.put(caller, one, 1)
	}
	l.mu.Unlock()
	return one.AllowN(now, n)
}

// network is the caller's address as far as limits are concerned. Whoever has an IPv6 address has the 2^64 beside it.
func network(remote string) string {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return "unknown"
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return "unknown"
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		prefix, _ := addr.Prefix(64)
		addr = prefix.Addr()
	}
	return addr.String()
}

// lru keeps the values used last whose weights add up to no more than a bound.
type lru[K comparable, V any] struct {
	mu      sync.Mutex
	bound   int
	weight  int
	entries map[K]*lruEntry[K, V]
	ring    lruEntry[K, V] // ring.next is the newest, ring.prev the oldest
}

type lruEntry[K comparable, V any] struct {
	key        K
	value      V
	weight     int
	prev, next *lruEntry[K, V]
}

func newLRU[K comparable, V any](bound int) *lru[K, V] {
	l := &lru[K, V]{bound: bound, entries: make(map[K]*lruEntry[K, V])}
	l.ring.prev, l.ring.next = &l.ring, &l.ring
	return l
}

func (l *lru[K, V]) get(key K) (V, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.entries[key]
	if !ok {
		var none V
		return none, false
	}
	if l.ring.next != e {
		l.unlink(e)
		l.link(e)
	}
	return e.value, true
}

// put adds or replaces. What is heavier than the bound is not kept.
func (l *lru[K, V]) put(key K, value V, weight int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if old, ok := l.entries[key]; ok {
		l.drop(old)
	}
	if weight > l.bound {
		return
	}
	e := &lruEntry[K, V]{key: key, value: value, weight: weight}
	l.entries[key] = e
	l.link(e)
	for l.weight += weight; l.weight > l.bound; {
		l.drop(l.ring.prev)
	}
}

func (l *lru[K, V]) remove(key K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.entries[key]; ok {
		l.drop(e)
	}
}

func (l *lru[K, V]) drop(e *lruEntry[K, V]) {
	l.unlink(e)
	delete(l.entries, e.key)
	l.weight -= e.weight
}

func (l *lru[K, V]) link(e *lruEntry[K, V]) {
	e.prev, e.next = &l.ring, l.ring.next
	e.prev.next, e.next.prev = e, e
}

func (l *lru[K, V]) unlink(e *lruEntry[K, V]) { e.prev.next, e.next.prev = e.next, e.prev }
