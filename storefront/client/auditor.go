package client

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/problem"
	vaultapi "github.com/sallyport/sallyport/vault/api"
)

// patienceTries is how often a vault that has no time is asked again.
const patienceTries = 100

// LogFile fetches a file of the key-use log that anybody may have, from the vault itself: checkpoint, vault, or a hash tile, by its name in the published
// form. It is not verified here. What is not there is an error that wraps [fs.ErrNotExist].
func (r *Reader) LogFile(ctx context.Context, name string) ([]byte, error) {
	return r.logFile(ctx, name)
}

func (d *device) logFile(ctx context.Context, name string) ([]byte, error) {
	var out []byte
	err := d.ofVault(ctx, request{method: "GET", path: "/v1/log/" + name, out: &out})
	if errors.Is(err, policies.CodeNotFound) {
		return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return out, err
}

// QueryLog asks the vault itself, as one of its auditors, for "entries" of the key-use log, or for the "bodies" beside them: count of them from an index
// on, of which the answer may have only the first. The vault's log says that this identity asked. The answer is not verified here.
func (r *Reader) QueryLog(ctx context.Context, from, count uint64, what string) ([]byte, error) {
	v, err := r.vault(ctx)
	if err != nil {
		return nil, err
	}
	now := r.now()
	e, err := policies.Sign(r.signing, &policies.AuditQuery{
		Header: policies.NewHeader("audit-query", now), Audience: v.Vault, Auditor: r.id, Nonce: policies.NewNonce(),
		Expires: now.Add(policies.RequestLifetime).Unix(), From: from, Count: count, What: what,
	})
	if err != nil {
		return nil, err
	}
	var out []byte
	err = r.ofVault(ctx, request{method: "POST", path: vaultapi.PathLogQuery, raw: e.Raw, out: &out})
	return out, err
}

// ofVault calls the vault past the storefront. If the vault has no time, it waits as long as it is told to: a request that was not answered for that
// reason was not used.
func (d *device) ofVault(ctx context.Context, q request) error {
	if q.base = d.wire.owners; q.base == nil {
		return fmt.Errorf("%w: no address of the vault itself is known; --vault-url names it", policies.CodeUnavailable)
	}
	for try := 1; ; try++ {
		err := d.wire.call(ctx, q)
		p := new(problem.Problem)
		if !errors.Is(err, policies.CodeRateLimited) || !errors.As(err, &p) || p.RetryAfter == 0 || try == patienceTries {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(time.Duration(p.RetryAfter) * time.Second):
		}
	}
}
