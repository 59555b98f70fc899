#include "shim.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/* CK_FUNCTION_LIST (PKCS#11 2.40, section 3.6): the version, then one pointer
 * per function in the order of pkcs11f.h. The indexes are those of that file. */
struct sp_module {
	unsigned char major, minor;
	void (*fn[68])(void);
};

enum { INIT_TOKEN = 9, INIT_PIN = 10, LOGIN = 18, GET_ATTRIBUTE_VALUE = 24, DECRYPT = 34 };

#define ARRAY_LIMIT 64      /* attributes in one array */
#define VALUE_LIMIT 65536   /* bytes in one of them */
#define UNAVAILABLE ((unsigned long)-1)
#define HOST_MEMORY 2UL     /* CKR_HOST_MEMORY */
#define GENERAL_ERROR 5UL   /* CKR_GENERAL_ERROR */

typedef unsigned long (*get_attribute)(unsigned long, unsigned long, sp_attribute *, unsigned long);

sp_module *sp_load(const char *path)
{
	void *library = dlopen(path, RTLD_LAZY);
	if (library == NULL)
		return NULL;
	unsigned long (*list)(sp_module **);
	*(void **)&list = dlsym(library, "C_GetFunctionList");
	sp_module *m = NULL;
	if (list == NULL || list(&m) != 0)
		return NULL;
	return m;
}

unsigned long sp_login(sp_module *m, unsigned long session, unsigned long user, unsigned char *pin, unsigned long n)
{
	return ((unsigned long (*)(unsigned long, unsigned long, unsigned char *, unsigned long))m->fn[LOGIN])(session, user, pin, n);
}

unsigned long sp_init_pin(sp_module *m, unsigned long session, unsigned char *pin, unsigned long n)
{
	return ((unsigned long (*)(unsigned long, unsigned char *, unsigned long))m->fn[INIT_PIN])(session, pin, n);
}

unsigned long sp_init_token(sp_module *m, unsigned long slot, unsigned char *pin, unsigned long n, unsigned char *label)
{
	return ((unsigned long (*)(unsigned long, unsigned char *, unsigned long, unsigned char *))m->fn[INIT_TOKEN])(slot, pin, n, label);
}

/* sp_read reads one plain attribute. With into == NULL it answers the length. */
unsigned long sp_read(sp_module *m, unsigned long session, unsigned long object, unsigned long type, unsigned char *into, unsigned long *length)
{
	sp_attribute a = { type, into, *length };
	unsigned long rv = ((get_attribute)m->fn[GET_ATTRIBUTE_VALUE])(session, object, &a, 1);
	*length = a.length;
	return rv;
}

/* sp_read_short reads several plain attributes in one call, each into SP_SHORT bytes of into. */
unsigned long sp_read_short(sp_module *m, unsigned long session, unsigned long object, unsigned long *types, unsigned long n, unsigned char *into, unsigned long *lengths)
{
	sp_attribute a[SP_SHORT];
	for (unsigned long i = 0; i < n; i++)
		a[i] = (sp_attribute){ types[i], into + i * SP_SHORT, SP_SHORT };
	unsigned long rv = ((get_attribute)m->fn[GET_ATTRIBUTE_VALUE])(session, object, a, n);
	for (unsigned long i = 0; i < n; i++)
		lengths[i] = a[i].length;
	return rv;
}

/* sp_decrypt ends a decryption that was begun, in one call: *length is the room
 * in into, then what was written. */
unsigned long sp_decrypt(sp_module *m, unsigned long session, unsigned char *cipher, unsigned long n, unsigned char *into, unsigned long *length)
{
	return ((unsigned long (*)(unsigned long, unsigned char *, unsigned long, unsigned char *, unsigned long *))m->fn[DECRYPT])(session, cipher, n, into, length);
}

/* sp_read_array reads an attribute whose value is a CK_ATTRIBUTE[]: first how
 * many there are, then their types and lengths, then their values. */
unsigned long sp_read_array(sp_module *m, unsigned long session, unsigned long object, unsigned long type, sp_attribute **into, unsigned long *count)
{
	get_attribute get = (get_attribute)m->fn[GET_ATTRIBUTE_VALUE];
	sp_attribute outer = { type, NULL, 0 };
	*into = NULL;
	*count = 0;
	unsigned long rv = get(session, object, &outer, 1);
	if (rv != 0)
		return rv;
	if (outer.length == 0)
		return 0;
	unsigned long n = outer.length / sizeof(sp_attribute);
	if (outer.length == UNAVAILABLE || n > ARRAY_LIMIT || n * sizeof(sp_attribute) != outer.length)
		return GENERAL_ERROR;
	sp_attribute *a = calloc(n, sizeof *a);
	if (a == NULL)
		return HOST_MEMORY;
	unsigned long room[ARRAY_LIMIT];
	outer.value = a;
	rv = get(session, object, &outer, 1);
	for (unsigned long i = 0; rv == 0 && i < n; i++) {
		room[i] = a[i].length;
		if (room[i] > VALUE_LIMIT)
			rv = GENERAL_ERROR;
		else if ((a[i].value = calloc(room[i] + 1, 1)) == NULL)
			rv = HOST_MEMORY;
	}
	if (rv == 0)
		rv = get(session, object, &outer, 1);
	for (unsigned long i = 0; rv == 0 && i < n; i++)
		if (a[i].length > room[i])
			rv = GENERAL_ERROR;
	if (rv != 0) {
		sp_free_array(a, n);
		return rv;
	}
	*into = a;
	*count = n;
	return 0;
}

void sp_free_array(sp_attribute *a, unsigned long count)
{
	if (a == NULL)
		return;
	for (unsigned long i = 0; i < count; i++)
		free(a[i].value);
	free(a);
}
