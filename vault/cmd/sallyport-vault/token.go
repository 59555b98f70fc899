package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/sallyport/sallyport/hardware"
	"github.com/sallyport/sallyport/pkcs11"
	"github.com/sallyport/sallyport/vault"
)

// token is a pool of token workers in the words of the vault.
type token struct{ pool *pkcs11.Pool }

func (t token) Import(ctx context.Context, keys []vault.WrappedKey) []vault.Imported {
	ask := make([]pkcs11.WrappedKey, len(keys))
	for i, k := range keys {
		ask[i] = pkcs11.WrappedKey{ID: pkcs11.KeyID(k.Key), Path: k.Path, Wrapped: k.Wrapped}
	}
	checks, errs := t.pool.ImportKeys(ctx, ask...)
	out := make([]vault.Imported, len(keys))
	for i := range out {
		out[i] = vault.Imported{Check: vault.KeyCheck(checks[i]), Err: translate(errs[i])}
	}
	return out
}

func (t token) Derive(ctx context.Context, uses []vault.Use) []vault.Derived {
	requests := make([]pkcs11.DeriveRequest, len(uses))
	for i := range uses {
		requests[i] = pkcs11.DeriveRequest{Key: pkcs11.KeyID(uses[i].Key), Point: uses[i].Point, Sealed: pkcs11.SealedKey(uses[i].Sealed)}
	}
	results := t.pool.Derive(ctx, requests)
	out := make([]vault.Derived, len(results))
	for i := range results {
		out[i] = vault.Derived{X: results[i].X, Err: translate(results[i].Err)}
		clear(results[i].X[:])
	}
	return out
}

func (t token) Destroy(ctx context.Context, keys []vault.EndingKey) []error {
	ask := make([]pkcs11.EndingKey, len(keys))
	for i, k := range keys {
		ask[i] = pkcs11.EndingKey{ID: pkcs11.KeyID(k.Key), Check: pkcs11.KeyCheck(k.Check)}
	}
	errs := t.pool.DestroyKeys(ctx, ask...)
	for i, err := range errs {
		if errs[i] = translate(err); errors.Is(err, pkcs11.ErrRefused) {
			errs[i] = fmt.Errorf("%w: %w", vault.ErrKeyStuck, err)
		}
	}
	return errs
}

// Keys is asked once, before anything is derived or imported: what an earlier vault left unfinished goes first.
func (t token) Keys(ctx context.Context) (held, disputed []vault.KeyID, err error) {
	cleaned, err := t.pool.Clean(ctx)
	if err != nil {
		return nil, nil, err
	}
	all, err := t.pool.Keys(ctx)
	for _, id := range all {
		held = append(held, vault.KeyID(id))
	}
	for _, id := range cleaned.Disputed {
		disputed = append(disputed, vault.KeyID(id))
	}
	return held, disputed, err
}

func (t token) ImportSealed(ctx context.Context, key vault.WrappedKey) (vault.SealedKey, error) {
	k, err := t.pool.ImportSealed(ctx, pkcs11.KeyID(key.Key), key.Path, key.Wrapped)
	return vault.SealedKey(k), translate(err)
}

func (t token) Forget(ctx context.Context, key vault.KeyID) error {
	return t.pool.Forget(ctx, pkcs11.KeyID(key))
}

func (t token) Reseal(ctx context.Context, keys []vault.SealedKey) ([]vault.SealedKey, error) {
	ask := make([]pkcs11.SealedKey, len(keys))
	for i := range keys {
		ask[i] = pkcs11.SealedKey(keys[i])
	}
	moved, err := t.pool.Reseal(ctx, ask)
	out := make([]vault.SealedKey, len(moved))
	for i := range moved {
		out[i] = vault.SealedKey(moved[i])
	}
	return out, translate(err)
}

func (t token) SealingKeys(ctx context.Context) (periods []uint32, decoys int, err error) {
	return t.pool.SealingKeys(ctx)
}

func (t token) DestroySealingKey(ctx context.Context, period uint32) error {
	err := t.pool.DestroySealingKey(ctx, period)
	if errors.Is(err, pkcs11.ErrKeyMissing) {
		return nil
	}
	return err
}

// translate adds the vault's sentinel to an error that it tells apart.
func translate(err error) error {
	switch {
	case errors.Is(err, pkcs11.ErrKeyMissing):
		return fmt.Errorf("%w: %w", vault.ErrKeyMissing, err)
	case errors.Is(err, pkcs11.ErrKeyRenamed):
		return fmt.Errorf("%w: %w", vault.ErrKeyRenamed, err)
	case errors.Is(err, pkcs11.ErrKeyExists):
		return fmt.Errorf("%w: %w", vault.ErrKeyExists, err)
	case errors.Is(err, pkcs11.ErrTokenFull):
		return fmt.Errorf("%w: %w", vault.ErrTokenFull, err)
	}
	return err
}

// stateKeeper is the token's memory of the signer's state, whose errors the vault's health can name.
type stateKeeper struct{ hardware.StateKeeper }

// Save is that of the token.
func (k stateKeeper) Save(ctx context.Context, state []byte) error {
	return translate(k.StateKeeper.Save(ctx, state))
}
