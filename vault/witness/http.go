package witness

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/time/rate"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/problem"
	"github.com/sallyport/sallyport/vault/gate"
)

// MaxBody is the longest request in bytes: a proof, and a checkpoint with a score of post-quantum signatures.
const MaxBody = 96 << 10

// maxAddresses bounds the memory of rates.
const maxAddresses = 4096

// Rate is what one address may ask. Whoever asks for what is cosigned already costs two signatures and two syncs.
type Rate struct {
	PerSecond float64
	Burst     int
}

// Handler serves C2SP tlog-witness: POST /add-checkpoint, and GET /<SHA-256 of the origin>/checkpoint, the last checkpoint that was cosigned.
func (w *Witness) Handler(r Rate) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /add-checkpoint", w.add)
	mux.HandleFunc("GET /{log}/checkpoint", w.checkpoint)
	mux.HandleFunc("/", func(out http.ResponseWriter, _ *http.Request) {
		answer(out, refuse(http.StatusNotFound, "a witness has POST /add-checkpoint and GET /<log>/checkpoint"))
	})
	limit := &limiter{rate: r, buckets: map[netip.Prefix]*rate.Limiter{}}
	return http.HandlerFunc(func(out http.ResponseWriter, in *http.Request) {
		if !limit.allow(in.RemoteAddr, time.Now()) {
			out.Header().Set("Retry-After", "1")
			answer(out, refuse(http.StatusTooManyRequests, "too many requests; wait and try again"))
			return
		}
		mux.ServeHTTP(out, in)
	})
}

func (w *Witness) add(out http.ResponseWriter, in *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(out, in.Body, MaxBody))
	if err != nil {
		status := http.StatusBadRequest
		if tooLarge := new(http.MaxBytesError); errors.As(err, &tooLarge) {
			status = http.StatusRequestEntityTooLarge
		}
		answer(out, refuse(status, "the body is cut short, or larger than %d bytes", MaxBody))
		return
	}
	lines, err := w.AddCheckpoint(body)
	var refused *Refusal
	switch {
	case errors.As(err, &refused):
		answer(out, refused)
	case err != nil:
		w.cfg.Log.Error("nothing is cosigned", "error", err.Error())
		answer(out, refuse(http.StatusServiceUnavailable, "the witness cannot sign now; its operator must look"))
	default:
		out.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(out, lines)
	}
}

func (w *Witness) checkpoint(out http.ResponseWriter, in *http.Request) {
	for _, o := range w.logs {
		if o.name != in.PathValue("log") {
			continue
		}
		o.mu.Lock()
		text := o.note
		o.mu.Unlock()
		if text != nil {
			out.Header().Set("Content-Type", "text/plain; charset=utf-8")
			out.Header().Set("Cache-Control", "no-cache")
			_, _ = out.Write(text)
			return
		}
	}
	answer(out, refuse(http.StatusNotFound, "nothing was cosigned of such a log"))
}

// answer writes a refusal: a problem document, but for the conflict, which has a form of its own.
func answer(out http.ResponseWriter, r *Refusal) {
	if r.Status == http.StatusConflict {
		out.Header().Set("Content-Type", "text/x.tlog.size")
		out.WriteHeader(r.Status)
		fmt.Fprintf(out, "%d\n", r.Size)
		return
	}
	code := map[int]policies.Code{
		http.StatusBadRequest: policies.CodeMalformed, http.StatusForbidden: policies.CodeSignature, http.StatusNotFound: policies.CodeNotFound,
		http.StatusRequestEntityTooLarge: policies.CodeTooLarge, http.StatusUnprocessableEntity: policies.CodeProof,
		http.StatusTooManyRequests: policies.CodeRateLimited, http.StatusServiceUnavailable: policies.CodeUnavailable,
	}[r.Status]
	p := problem.Of(problem.New(code, "%s", r.Text))
	p.Status, p.Title = r.Status, "the witness does not cosign this"
	body, err := json.Marshal(p)
	if err != nil { // nothing in it can fail
		panic(err)
	}
	out.Header().Set("Content-Type", problem.ContentType)
	out.Header().Set("Cache-Control", "no-store")
	out.WriteHeader(r.Status)
	_, _ = out.Write(body)
}

// limiter is a bucket for each address, or for each /64 of IPv6.
type limiter struct {
	rate    Rate
	mu      sync.Mutex
	buckets map[netip.Prefix]*rate.Limiter
}

func (l *limiter) allow(remote string, now time.Time) bool {
	key := gate.Network(remote)
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.buckets[key]
	if b == nil {
		if len(l.buckets) >= maxAddresses {
			for k, b := range l.buckets {
				if b.TokensAt(now) >= float64(l.rate.Burst) {
					delete(l.buckets, k)
				}
			}
			if len(l.buckets) >= maxAddresses {
				clear(l.buckets)
			}
		}
		b = rate.NewLimiter(rate.Limit(l.rate.PerSecond), l.rate.Burst)
		l.buckets[key] = b
	}
	return b.AllowN(now, 1)
}
