package storefront

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/envelope"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/storefront/api"
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

	// Manifests and grants a second and at once, by each owner: they are kept for ever. One over 8 KiB counts as several.
	DocumentRate  float64 `koanf:"document_rate"`  // default 1
	DocumentBurst int     `koanf:"document_burst"` // default 5000

	// Bytes in memory at once, over all and for one caller: of bodies, all but the first 64 KiB of each, and of ciphertext in answers to reads.
	Memory     int64 `koanf:"memory"`      // default 512 MiB
	MemoryEach int64 `koanf:"memory_each"` // default 64 MiB; at least 32 MiB, the most that one request takes

	// Messages a second and at once, by each sender. One over 8 KiB counts as several.
	MessageRate  float64 `koanf:"message_rate"`  // default 20
	MessageBurst int     `koanf:"message_burst"` // default 2,000
	// Messages that wait for one receiver: all, those of one sender, and their bytes together.
	Messages     int   `koanf:"messages"`      // default 20,000
	MessagesEach int   `koanf:"messages_each"` // default 64
	MessageBytes int64 `koanf:"message_bytes"` // default 256 MiB

	Callers       int           `koanf:"callers"`       // how many callers' rates are remembered; default 100,000
	Fields        int           `koanf:"fields"`        // of one owner; default 4,096
	OwnerBytes    int64         `koanf:"owner_bytes"`   // ciphertext of one owner; default 64 MiB
	Relationships int           `koanf:"relationships"` // of one reader, with however many owners; default 20,000
	Logins        int           `koanf:"logins"`        // at the same time; default 100,000
	Sessions      int           `koanf:"sessions"`      // at the same time; default 100,000
	Login         time.Duration `koanf:"login"`         // how long a login lasts; default 15m
	CachedLeaves  int           `koanf:"cached_leaves"` // kept in memory: leaves, and manifests and grants as what they weigh; default 200,000
	CachedBytes   int           `koanf:"cached_bytes"`  // ciphertext kept in memory; default 64 MiB
}

// WithDefaults puts the defaults where a limit is zero and refuses limits that make no sense.
func (l Limits) WithDefaults() (Limits, error) {
	for name, rate := range map[string]float64{
		"open_rate": l.OpenRate, "identity_rate": l.IdentityRate, "login_rate": l.LoginRate, "field_rate": l.FieldRate, "document_rate": l.DocumentRate, "message_rate": l.MessageRate,
	} {
		if !(rate >= 0 && rate <= 1e9) { // which NaN is not either
			return l, fmt.Errorf("limits: %s is %v: it is a number a second, at most 1000000000", name, rate)
		}
	}
	if min(l.OpenBurst, l.IdentityBurst, l.LoginBurst, l.FieldBurst, l.DocumentBurst, l.MessageBurst, l.Messages, l.MessagesEach) < 0 ||
		min(l.Callers, l.Fields, l.Relationships, l.Logins, l.Sessions, l.CachedLeaves, l.CachedBytes) < 0 || min(l.OwnerBytes, l.Memory, l.MemoryEach, l.MessageBytes) < 0 || l.Login < 0 {
		return l, errors.New("limits: a limit is below zero")
	}
	if l.DocumentBurst != 0 && l.DocumentBurst < documentCost(envelope.MaxSize) {
		return l, fmt.Errorf("limits: document_burst must be at least %d, what the longest document costs", documentCost(envelope.MaxSize))
	}
	if l.MessageBurst != 0 && l.MessageBurst < documentCost(api.MaxMessage) || l.MessageBytes != 0 && l.MessageBytes < api.MaxMessage {
		return l, fmt.Errorf("limits: message_burst must be at least %d, what the longest message costs, and message_bytes at least %d, its length", documentCost(api.MaxMessage), api.MaxMessage)
	}
	if l.Memory != 0 && l.Memory < readBytes || l.MemoryEach != 0 && l.MemoryEach < readBytes {
		return l, fmt.Errorf("limits: memory and memory_each must be at least %d", readBytes)
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
	orDefault(&l.DocumentRate, 1)
	orDefault(&l.DocumentBurst, 5000)
	orDefault(&l.MessageRate, 20)
	orDefault(&l.MessageBurst, 2000)
	orDefault(&l.Messages, 20_000)
	orDefault(&l.MessagesEach, 64)
	orDefault(&l.MessageBytes, 256<<20)
	orDefault(&l.Relationships, 20_000)
	orDefault(&l.Memory, 512<<20)
	orDefault(&l.MemoryEach, 64<<20)
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

// documentCost is what a document of so many bytes takes off its sender's rate of documents.
func documentCost(size int) int { return 1 + size/(8*kib) }

// chargeDocument takes a document that is to be kept for ever off its sender's rate.
func (s *Storefront) chargeDocument(sender policies.IdentityID, env *envelope.Envelope) error {
	if !s.callers.allow("d"+string(sender[:]), s.now(), s.limits.DocumentRate, s.limits.DocumentBurst, documentCost(len(env.Raw))) {
		return &problem.Problem{Code: policies.CodeRateLimited, Detail: "too many documents; each is kept for ever", RetryAfter: 10}
	}
	return nil
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
