/* A PKCS#11 module of two functions. Its one attribute is an array of one
 * element, which is 1 byte long when asked for its length and 4096 when read. */
#include <stddef.h>

typedef unsigned long ulong;
typedef struct { ulong type; void *value; ulong length; } attribute;

static ulong initialize(void *arguments) { (void)arguments; return 0; }

static ulong get_attribute_value(ulong session, ulong object, attribute *outer, ulong count)
{
	(void)session, (void)object, (void)count;
	if (outer->value != NULL) {
		attribute *element = outer->value;
		element->length = element->value == NULL ? 1 : 4096;
	}
	outer->length = sizeof(attribute);
	return 0;
}

static struct { unsigned char version[2]; void *functions[68]; } list = {
	.version = { 2, 40 },
	.functions = { [0] = initialize, [24] = get_attribute_value },
};

ulong C_GetFunctionList(void **to) { *to = &list; return 0; }
