// Package problem carries errors over HTTP and back: RFC 9457 problem documents with a stable code. What is a
// [policies.Code] on one side is the same sentinel on the other, so errors.Is works across the wire.
package problem

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/evidence"
)

// ContentType is the media type of a problem document.
const ContentType = "application/problem+json"

// Bounds: a problem document that is read, in bytes; the detail of any, in bytes; how long another side may ask to wait, in seconds.
const (
	maxSize       = 64 << 10
	maxDetail     = 1000
	maxRetryAfter = 3600
)

// Problem is an RFC 9457 problem document. It is an error that wraps its Code.
type Problem struct {
	Type   string        `json:"type"`   // urn:sallyport:problem:<code>
	Title  string        `json:"title"`  // what the code means and what to do
	Status int           `json:"status"` // the HTTP status
	Code   policies.Code `json:"code"`
	Detail string        `json:"detail,omitempty"` // about this occurrence
	// Receipt is, with chain_moved and storefront_behind, the vault's receipt of the newest document it knows instead; with account_closed that of the closing,
	// for whoever has the account's keys.
	Receipt *evidence.Receipt `json:"receipt,omitempty"`
	// RetryAfter is, with rate_limited and unavailable, how many seconds to wait.
	RetryAfter int `json:"retry_after,omitempty"`
}

// Error is the title and the detail.
func (p *Problem) Error() string {
	title := p.Code.Error()
	if p.Detail == "" {
		return title
	}
	return title + ": " + p.Detail
}

// Unwrap makes the code the sentinel.
func (p *Problem) Unwrap() error { return p.Code }

// New makes a problem with a detail that may be shown to the caller.
func New(code policies.Code, format string, args ...any) *Problem {
	return &Problem{Code: code, Detail: fmt.Sprintf(format, args...)}
}

// Of turns any error into a problem. Errors that are neither a problem, a code nor a fault of the caller's bytes become "internal" without
// detail: their text is for the log of the process, not for a stranger. So is what a fault of this side (a status of 500 or more) was wrapped
// with, and why an import was refused: refusals that can be told apart make the vault an oracle for the token's unwrapping. A [Problem]
// among them keeps the detail it was made with.
func Of(err error) *Problem {
	p := new(Problem)
	var code policies.Code
	switch found := (*Problem)(nil); {
	case errors.As(err, &found):
		*p = *found
	case errors.As(err, &code):
		p.Code = code
		if detail := err.Error(); detail != code.Error() && code != policies.CodeImport && Status(code) < http.StatusInternalServerError {
			p.Detail = detail
		}
	case errors.Is(err, policies.ErrMalformed):
		p.Code, p.Detail = policies.CodeMalformed, err.Error()
	case errors.Is(err, policies.ErrSignature):
		p.Code = policies.CodeSignature
	case errors.Is(err, policies.ErrProof):
		p.Code = policies.CodeProof
	default:
		p.Code = policies.CodeInternal
	}
	p.Detail = clean(p.Detail)
	p.Type, p.Title, p.Status = "urn:sallyport:problem:"+string(p.Code), p.Code.Error(), Status(p.Code)
	return p
}

// clean makes a detail fit to be encoded, logged and shown on a terminal: it may repeat what a stranger sent.
func clean(detail string) string {
	if len(detail) > maxDetail {
		detail = strings.ToValidUTF8(detail[:maxDetail], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, detail)
}

// Write answers a request with a problem.
func Write(w http.ResponseWriter, err error) {
	p := Of(err)
	body, encodeErr := json.Marshal(p)
	if encodeErr != nil {
		http.Error(w, "internal", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", ContentType)
	w.Header().Set("Cache-Control", "no-store")
	if p.RetryAfter > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(p.RetryAfter))
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body)
}

// Read turns the body of an answer with an error status into an error that wraps the code. An answer that is no problem
// document, from a proxy say, becomes "unavailable" with the status.
func Read(status int, contentType string, body io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(body, maxSize))
	p := new(Problem)
	if err != nil || contentType != ContentType || json.Unmarshal(data, p) != nil || !p.Code.Valid() {
		return New(policies.CodeUnavailable, "the other side answered with HTTP status %d", status)
	}
	p.Detail, p.RetryAfter = clean(p.Detail), min(max(p.RetryAfter, 0), maxRetryAfter)
	return p
}

// Status is the HTTP status of a code.
func Status(code policies.Code) int {
	switch code {
	case policies.CodeMalformed, policies.CodeWrongVault, policies.CodeProof, policies.CodeLeaf, policies.CodePoint, policies.CodeCustody, policies.CodeImport:
		return http.StatusBadRequest
	case policies.CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case policies.CodeSignature, policies.CodeUnknown, policies.CodeUnauthorized, policies.CodeSession, policies.CodeExpired, policies.CodeReplay:
		return http.StatusUnauthorized
	case policies.CodeNoGrant, policies.CodeRevoked, policies.CodeGrantExpired, policies.CodeNotYet, policies.CodeLimit, policies.CodePurpose, policies.CodeGuardrail,
		policies.CodeAuditor, policies.CodeSender, policies.CodeNotAsked, policies.CodeTooWide, policies.CodeRequired, policies.CodeConsentExpired, policies.CodeInvitation, policies.CodeNoWriteGrant, policies.CodeWriteEnded,
		policies.CodeNotIntroduced, policies.CodeIntroducer, policies.CodeIntroductionExpired, policies.CodeSpecification, policies.CodeForwarder, policies.CodeSource, policies.CodeAttestation,
		policies.CodeKeyReplaced, policies.CodeRecovery, policies.CodePasswordWrong, policies.CodePasswordLocked, policies.CodeKitWrong, policies.CodeSuspended, policies.CodeFrozen, policies.CodeOperator,
		policies.CodeVoucher, policies.CodeRules, policies.CodeDomain, policies.CodeNotInvited:
		return http.StatusForbidden
	case policies.CodeNotFound:
		return http.StatusNotFound
	case policies.CodeClosed, policies.CodePartyClosed:
		return http.StatusGone
	case policies.CodeExists, policies.CodeChain, policies.CodeHeadMoved, policies.CodeBehind, policies.CodeAnswered,
		policies.CodeSuccessionOld, policies.CodeSuccessionPending, policies.CodeSuccessionUnannounced, policies.CodeOutdated,
		policies.CodeVoucherOld, policies.CodeRulesOld, policies.CodeLookAlike,
		policies.CodeIntroductionUsed, policies.CodeOrderUsed:
		return http.StatusConflict
	case policies.CodeRateLimited, policies.CodeMailboxFull, policies.CodeAskedAgain:
		return http.StatusTooManyRequests
	case policies.CodeUnavailable, policies.CodeLogStopped, policies.CodeLogFull, policies.CodeClock, policies.CodeTokenFailure, policies.CodeKeyMissing:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}
